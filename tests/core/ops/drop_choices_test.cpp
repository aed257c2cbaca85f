#include "core/ops/drop_choices.h"

#include <cmath>
#include <limits>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Case {
  int64_t tokens = 0, chosen = 0, experts = 0;
  double capacity = 1;
};
const Case cases[] = {{.tokens = 20, .chosen = 3, .experts = 7, .capacity = 1},
                      {.tokens = 1, .chosen = 1, .experts = 1, .capacity = 0.1},
                      {.tokens = 50, .chosen = 4, .experts = 6, .capacity = 1.25},
                      {.tokens = 50, .chosen = 4, .experts = 9, .capacity = 0.3},
                      {.tokens = 33, .chosen = 2, .experts = 5, .capacity = 1e6}};

// Each token goes to different experts, low ones more often.
std::vector<int32_t> some_ids(const Case& c) {
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t k = 0; k < c.chosen; ++k) {
      ids.push_back(static_cast<int32_t>((t % 3 > 0 ? k : t * t / 3 + k) % c.experts));
    }
  }
  return ids;
}
// Gates repeat, so that there are ties; some are not numbers.
std::vector<double> some_gates(const Case& c) {
  std::vector<double> gates;
  for (int64_t i = 0; i < c.tokens * c.chosen; ++i) {
    gates.push_back(i % 31 == 7 ? std::nan("") : static_cast<double>(i * 5 % 7) / 8);
  }
  return gates;
}

Tensor numbers(Device& device, const Case& c, const std::vector<int32_t>& list) {
  return Tensor::from(device, {c.tokens, c.chosen}, std::span<const int32_t>(list));
}

Tensor run(Device& device, const Case& c, const Tensor& ids, Dtype dtype) {
  Stream stream = Stream::immediate(device);
  const Tensor gates = make_tensor(device, {c.tokens, c.chosen}, dtype, some_gates(c));
  NothingSaved nothing;
  return DropChoices::forward(stream, {.experts = c.experts, .capacity = c.capacity}, {ids, gates},
                              nothing)[0];
}

// By definition: a choice stays if fewer than the capacity's rows of its expert come before it, by
// gate and then by token.
TEST(DropChoices, EachExpertKeepsItsHighestGates) {
  Device device;
  for (const Case& c : cases) {
    const std::vector<int32_t> ids = some_ids(c);
    const std::vector<double> gates = some_gates(c);
    const double even = static_cast<double>(ids.size()) / static_cast<double>(c.experts);
    const double rows = std::ceil(c.capacity * even);
    EXPECT_EQ(rows_of_capacity({.experts = c.experts, .capacity = c.capacity},
                               static_cast<int64_t>(ids.size())),
              rows);
    int64_t dropped = 0;
    for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
      const Tensor kept = run(device, c, numbers(device, c, ids), dtype);
      for (size_t i = 0; i < ids.size(); ++i) {
        double before = 0;
        for (size_t j = 0; j < ids.size(); ++j) {
          if (ids[j] != ids[i]) continue;
          const bool here = !std::isnan(gates[i]), there = !std::isnan(gates[j]);
          const bool equal = here == there && (!here || gates[i] == gates[j]);
          before += equal ? j < i : there && (!here || gates[j] > gates[i]);
        }
        EXPECT_EQ(kept.data<int32_t>()[i], before < rows ? ids[i] : -1) << "choice " << i;
        dropped += before >= rows;
      }
    }
    EXPECT_EQ(dropped > 0, c.capacity < 2 && c.tokens > 1);
  }
}

// What is gone already takes no room.
TEST(DropChoices, OfWhatWasLeftNothingMoreIsDropped) {
  Device device;
  for (const Case& c : cases) {
    const Tensor once = run(device, c, numbers(device, c, some_ids(c)), Dtype::f32);
    expect_same_bits(run(device, c, once, Dtype::f32), once, "kept choices");
  }
}

TEST(DropChoices, HasNoGradientAndRefusesWhatIsNoChoice) {
  Device device;
  Stream stream = Stream::immediate(device);
  const Case c{.tokens = 2, .chosen = 1, .experts = 4, .capacity = 1};
  for (const int32_t wrong : {-2, 4}) {
    EXPECT_THROW(run(device, c, numbers(device, c, {0, wrong}), Dtype::f32), Error);
  }
  for (const double capacity : {0.0, -1.0, std::nan("")}) {
    EXPECT_THROW(run(device, {2, 1, 4, capacity}, numbers(device, c, {0, 1}), Dtype::f32), Error);
  }
  const auto none = DropChoices::grad_input(stream, {}, {}, {});
  EXPECT_FALSE(none[0]);
  EXPECT_FALSE(none[1]);
}

}  // namespace
}  // namespace shoestring
