#include "parallel/expert_node_rows.h"

#include "tests/parallel/expert_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

Tensor numbers(Device& device, const Shape& shape, const std::vector<int32_t>& values) {
  return Tensor::from(device, shape, std::span<const int32_t>(values));
}
std::vector<int32_t> list_of(const Tensor& x) {
  return {x.data<int32_t>(), x.data<int32_t>() + x.elements()};
}

// A node has 4 of 8 experts, on two ranks; 5 tokens choose 3 experts each.
TEST(ExpertNodeRows, PlacesAreTheLeastThatHoldFixedRows) {
  run_ranks(4, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    const GroupOf g(world, {.ranks = 4, .nodes = 2}, 8);
    const Tensor ids(device, {5, 3}, Dtype::i32);
    for (const auto& [fixed, tokens, choices] :
         {std::array<int64_t, 3>{0, 0, 0}, {1, 4, 4}, {2, 5, 8}, {4, 5, 15}}) {
      const NodePlaces p = places_of(g.group, ids, fixed);
      check(p.rows == fixed && p.tokens == tokens && p.choices == choices,
            cat(fixed, " rows: ", p.tokens, " tokens, ", p.choices, " choices"));
      check(p.inside == 2 * 2 * fixed, "two nodes' rows for two experts");
    }
  });
}

// Tokens 0 and 1 of two choose experts 3 and 0, and 2 and 3, of 4 on two nodes.
TEST(ExpertNodeRows, HomeByHand) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  const Tensor ids = numbers(device, {2, 2}, {3, 0, 2, 3});
  const auto home_of = [&](const NodePlaces& places) {
    NodeHome h{.ids = ids,
               .own = lay_out_dispatch(stream, {.experts = 4}, ids),
               .nodes = 2,
               .places = places};
    const int64_t choices = places.rows > 0 ? 2 * places.choices : 4;
    h.heads = row_numbers(stream, 6).reshape({2, 3});
    h.tokens = row_numbers(stream, 4);
    h.index = row_numbers(stream, choices);
    h.token_rows = row_numbers(stream, 4).reshape({2, 2});
    if (places.rows > 0) {
      h.there = row_numbers(stream, choices), h.gates_there = row_numbers(stream, choices);
      h.back = row_numbers(stream, 4), h.gates_back = row_numbers(stream, 4);
    }
    order_home(stream, h);
    return h;
  };
  using List = std::vector<int32_t>;
  const NodeHome exact = home_of({});
  EXPECT_EQ(list_of(exact.heads), (List{1, 0, 1, 1, 2, 2}));
  EXPECT_EQ(list_of(exact.tokens), (List{0, 0, 1, -1}));
  EXPECT_EQ(list_of(exact.index), (List{0, 1, 0, 1}));
  EXPECT_EQ(list_of(exact.token_rows), (List{0, 1, -1, 2}));
  const NodeHome fixed = home_of({.rows = 2, .tokens = 2, .choices = 3, .inside = 4});
  EXPECT_EQ(list_of(fixed.heads), list_of(exact.heads));
  EXPECT_EQ(list_of(fixed.tokens), (List{0, -1, 0, 1}));
  EXPECT_EQ(list_of(fixed.token_rows), (List{0, 2, -1, 3}));
  EXPECT_EQ(list_of(fixed.index), (List{0, -1, -1, 1, 0, 1}));
  EXPECT_EQ(list_of(fixed.there), (List{0, -1, -1, 1, 2, 3}));
  EXPECT_EQ(list_of(fixed.back), (List{0, 3, 4, 5}));
  EXPECT_EQ(list_of(fixed.gates_there), (List{1, -1, -1, 2, 0, 3}));
  EXPECT_EQ(list_of(fixed.gates_back), (List{4, 0, 3, 5}));
  EXPECT_THROW(home_of({.rows = 1, .tokens = 2, .choices = 3, .inside = 2}), Error);
}

// A relay with two ranks of an expert each, from two nodes: 2 and 1 choices, and 1 and 1.
TEST(ExpertNodeRows, RelayByHand) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  const Tensor heads = numbers(device, {2, 3}, {2, 1, 2, 1, 1, 1});
  using List = std::vector<int32_t>;
  const Tensor counts = row_numbers(stream, 4);
  order_pass(stream, {.heads = heads, .counts = counts, .ranks = 2});
  EXPECT_EQ(list_of(counts), (List{2, 1, 1, 1}));
  const auto relay_of = [&](const NodePlaces& places, const List& index, int64_t rows) {
    const auto choices = static_cast<int64_t>(index.size());
    NodeRelay r{.heads = heads,
                .index = numbers(device, {choices}, index),
                .chosen = 2,
                .ranks = 2,
                .places = places,
                .there = row_numbers(stream, rows),
                .back = row_numbers(stream, choices),
                .tokens = row_numbers(stream, rows),
                .gates_there = {},
                .gates_back = {},
                .node_rows = {}};
    order_relay(stream, r);
    return r;
  };
  const NodeRelay exact = relay_of({}, {0, 1, 0, 0, 0}, 5);
  EXPECT_EQ(list_of(exact.there), (List{0, 1, 3, 2, 4}));
  EXPECT_EQ(list_of(exact.back), (List{0, 1, 3, 2, 4}));
  EXPECT_EQ(list_of(exact.tokens), (List{0, 1, 2, 0, 2}));
  const NodeRelay fixed =
      relay_of({.rows = 2, .tokens = 3, .choices = 4, .inside = 4}, {0, 1, 0, -1, 0, 0, -1, -1}, 8);
  EXPECT_EQ(list_of(fixed.there), (List{0, 1, 4, -1, 2, 5, -1, -1}));
  EXPECT_EQ(list_of(fixed.back), (List{0, 1, 4, -1, 2, 5, -1, -1}));
  EXPECT_EQ(list_of(fixed.tokens), (List{0, 1, 3, -1, 0, 3, -1, -1}));
}

// Two experts get rows from ranks (a, i) of two nodes: 1 and 0 from (0, 0), 2 and 1 from (1, 0),
// 0 and 1 from (0, 1), and 1 and 0 from (1, 1); they arrive by i, then expert, then a.
TEST(ExpertNodeRows, ArrivalByHand) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  const auto arrival_of = [&](const NodePlaces& places, int64_t rows) {
    NodeArrival w{.counts = numbers(device, {8}, {1, 0, 2, 1, 0, 1, 1, 0}),
                  .nodes = 2,
                  .ranks = 2,
                  .slices = 1,
                  .places = places,
                  .there = row_numbers(stream, rows),
                  .back = row_numbers(stream, rows),
                  .offsets = row_numbers(stream, 9)};
    order_arrival(stream, w);
    return w;
  };
  using List = std::vector<int32_t>;
  const NodeArrival exact = arrival_of({}, 6);
  EXPECT_EQ(list_of(exact.offsets), (List{0, 1, 1, 3, 4, 4, 5, 6, 6}));
  EXPECT_EQ(list_of(exact.there), (List{0, 1, 2, 4, 5, 3}));
  const NodeArrival fixed = arrival_of({.rows = 2, .tokens = 3, .choices = 4, .inside = 5}, 10);
  EXPECT_EQ(list_of(fixed.offsets), list_of(exact.offsets));
  EXPECT_EQ(list_of(fixed.there), (List{0, 1, 2, 5, 6, 3, -1, -1, -1, -1}));
  EXPECT_EQ(list_of(fixed.back), (List{0, 1, 2, 5, -1, 3, 4, -1, -1, -1}));
}

}  // namespace
}  // namespace shoestring
