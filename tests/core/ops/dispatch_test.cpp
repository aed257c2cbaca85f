#include "core/ops/dispatch.h"

#include <numeric>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Case {
  int64_t tokens = 0, chosen = 0, experts = 0, width = 0;
  int64_t drop = 0;  // every so many choices one is dropped
};

// Each token goes to different experts, low ones more often.
std::vector<int32_t> some_ids(const Case& c) {
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t k = 0; k < c.chosen; ++k) {
      ids.push_back(static_cast<int32_t>((t * t / 3 * k + k) % c.experts));
      const auto begin = ids.end() - 1 - k;
      while (std::find(begin, ids.end() - 1, ids.back()) != ids.end() - 1) {
        ids.back() = static_cast<int32_t>((ids.back() + 1) % c.experts);
      }
    }
  }
  for (size_t i = 0; c.drop > 0 && i < ids.size(); i += static_cast<size_t>(c.drop)) ids[i] = -1;
  return ids;
}

struct Outcome {
  Tensor x, rows, offsets, row_of, drows, dx;
};

Outcome run(Device& device, const Case& c, Dtype dtype) {
  Stream stream = Stream::immediate(device);
  Outcome o;
  o.x = make_tensor(device, {c.tokens, c.width}, dtype, random_values(c.tokens * c.width, 1));
  const auto list = some_ids(c);
  const Tensor ids = Tensor::from(device, {c.tokens, c.chosen}, std::span<const int32_t>(list));
  Dispatch::Saved saved;
  const auto y = Dispatch::forward(stream, {.experts = c.experts}, {o.x, ids}, saved);
  o.rows = y[0];
  o.offsets = y[1];
  o.row_of = y[2];
  const int64_t rows = c.tokens * c.chosen;
  o.drows = make_tensor(device, {rows, c.width}, dtype, random_values(rows * c.width, 2));
  o.dx =
      Dispatch::grad_input(stream, {.experts = c.experts}, saved, {o.drows, Tensor(), Tensor()})[0];
  return o;
}

const Case cases[] = {{.tokens = 20, .chosen = 3, .experts = 7, .width = 9},
                      {.tokens = 1, .chosen = 1, .experts = 1, .width = 1},
                      {.tokens = 33, .chosen = 2, .experts = 40, .width = 17},
                      {.tokens = 50, .chosen = 4, .experts = 6, .width = 33, .drop = 3},
                      {.tokens = 50, .chosen = 4, .experts = 9, .width = 5, .drop = 2}};

TEST(Dispatch, RowsAreSortedByExpertAndThenByToken) {
  Device device(DeviceKind::cpu, 0, 2);
  for (const Case& c : cases) {
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
      const Outcome o = run(device, c, dtype);
      const auto ids = some_ids(c);
      const auto x = values_of(o.x), rows = values_of(o.rows);
      int64_t row = 0;
      for (int64_t e = 0; e < c.experts; ++e) {
        EXPECT_EQ(o.offsets.data<int32_t>()[e], row);
        for (size_t i = 0; i < ids.size(); ++i) {
          if (ids[i] == e || ids[i] == -1) {
            EXPECT_EQ(o.row_of.data<int32_t>()[i], ids[i] == e ? row : -1) << "choice " << i;
          }
          if (ids[i] != e) continue;
          const auto token = static_cast<int64_t>(i) / c.chosen;
          for (int64_t j = 0; j < c.width; ++j) {
            EXPECT_EQ(rows[static_cast<size_t>(row * c.width + j)],
                      x[static_cast<size_t>(token * c.width + j)]);
          }
          ++row;
        }
      }
      EXPECT_EQ(o.offsets.data<int32_t>()[c.experts], row);
      for (size_t i = static_cast<size_t>(row * c.width); i < rows.size(); ++i) {
        EXPECT_EQ(rows[i], 0);
      }
    }
  }
}

// The layout by itself is that of the op, and choice_of is its inverse.
TEST(Dispatch, LayoutIsTheOpsOwn) {
  Device device(DeviceKind::cpu, 0, 2);
  Stream stream = Stream::immediate(device);
  for (const Case& c : cases) {
    const Outcome o = run(device, c, Dtype::f32);
    const auto list = some_ids(c);
    const Tensor ids = Tensor::from(device, {c.tokens, c.chosen}, std::span<const int32_t>(list));
    const DispatchLayout layout = lay_out_dispatch(stream, {.experts = c.experts}, ids);
    expect_same_bits(layout.offsets, o.offsets, "offsets");
    expect_same_bits(layout.row_of, o.row_of, "row_of");
    std::vector<int32_t> want(list.size(), -1);
    for (size_t i = 0; i < list.size(); ++i) {
      const int32_t row = o.row_of.data<int32_t>()[i];
      if (row >= 0) want[static_cast<size_t>(row)] = static_cast<int32_t>(i);
    }
    const std::span<const int32_t> got = layout.choice_of.span<int32_t>();
    EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin(), want.end()));
  }
}

TEST(Dispatch, GradientSumsTheTokensRows) {
  Device device(DeviceKind::cpu, 0, 2);
  for (const Case& c : cases) {
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
      const Outcome o = run(device, c, dtype);
      const auto drows = values_of(o.drows);
      std::vector<double> want(static_cast<size_t>(c.tokens * c.width), 0);
      for (int64_t i = 0; i < c.tokens * c.chosen; ++i) {
        const int64_t row = o.row_of.data<int32_t>()[i];
        if (row < 0) continue;
        for (int64_t j = 0; j < c.width; ++j) {
          want[static_cast<size_t>(i / c.chosen * c.width + j)] +=
              drows[static_cast<size_t>(row * c.width + j)];
        }
      }
      const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
      expect_near(o.dx, want, {1.01, 30 * roundoff(wide)}, "dx");
    }
  }
}

TEST(Dispatch, SameBitsOnAnyNumberOfThreads) {
  const Case c{.tokens = 900, .chosen = 3, .experts = 11, .width = 65, .drop = 5};
  Device one(DeviceKind::cpu, 0, 1), four(DeviceKind::cpu, 0, 4);
  const Outcome a = run(one, c, Dtype::f32), b = run(four, c, Dtype::f32);
  expect_same_bits(a.rows, b.rows, "rows");
  expect_same_bits(a.row_of, b.row_of, "row_of");
  expect_same_bits(a.dx, b.dx, "dx");
}

TEST(Dispatch, RefusesExpertsThatDoNotExist) {
  Device device;
  Stream stream = Stream::immediate(device);
  Dispatch::Saved saved;
  const Tensor x = Tensor::zeros(device, {2, 3}, Dtype::f32);
  for (int32_t wrong : {-2, 4}) {
    const std::vector<int32_t> list = {0, wrong};
    const Tensor ids = Tensor::from(device, {2, 1}, std::span<const int32_t>(list));
    EXPECT_THROW(Dispatch::forward(stream, {.experts = 4}, {x, ids}, saved), Error);
  }
  EXPECT_FALSE(Dispatch::grad_input(stream, {}, saved, {})[0]);
}

}  // namespace
}  // namespace shoestring
