#include "core/ops/combine.h"

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Case {
  int64_t tokens = 0, chosen = 0, width = 0;
  bool drops = false, gaps = false;  // gaps: rows of dropped choices stand between the others
};

// Rows in an order that scatters them; every fifth choice is dropped.
std::vector<int32_t> some_rows(const Case& c) {
  const auto n = static_cast<int32_t>(c.tokens * c.chosen);
  std::vector<int32_t> row_of;
  int32_t used = 0;
  for (int32_t i = 0; i < n; ++i) {
    const bool dropped = c.drops && i % 5 == 4;
    row_of.push_back(dropped ? -1 : used);
    used += dropped && !c.gaps ? 0 : 1;
  }
  for (int32_t& row : row_of) {
    if (row >= 0) row = used - 1 - row;
  }
  return row_of;
}

struct Outcome {
  Tensor rows, gates, row_of, dy, y, drows, dgates;
};

Outcome run(Device& device, const Case& c, Dtype dtype) {
  Stream stream = Stream::immediate(device);
  const int64_t n = c.tokens * c.chosen;
  const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  Outcome o;
  o.rows = make_tensor(device, {n, c.width}, dtype, random_values(n * c.width, 1));
  o.gates = make_tensor(device, {c.tokens, c.chosen}, wide, random_values(n, 2));
  const auto list = some_rows(c);
  o.row_of = Tensor::from(device, {c.tokens, c.chosen}, std::span<const int32_t>(list));
  o.dy = make_tensor(device, {c.tokens, c.width}, dtype, random_values(c.tokens * c.width, 3));
  Combine::Saved saved;
  o.y = Combine::forward(stream, {}, {o.rows, o.gates, o.row_of}, saved)[0];
  const auto dx = Combine::grad_input(stream, {}, saved, {o.dy});
  o.drows = dx[0];
  o.dgates = dx[1];
  return o;
}

template <class S>
std::vector<S> sums(const Case& c, const std::vector<S>& rows, const std::vector<S>& gates) {
  const auto row_of = some_rows(c);
  std::vector<S> y(static_cast<size_t>(c.tokens * c.width), S(0));
  for (size_t i = 0; i < row_of.size(); ++i) {
    if (row_of[i] < 0) continue;
    const auto width = static_cast<size_t>(c.width), t = i / static_cast<size_t>(c.chosen);
    for (size_t j = 0; j < width; ++j) {
      y[t * width + j] += gates[i] * rows[static_cast<size_t>(row_of[i]) * width + j];
    }
  }
  return y;
}

const Case cases[] = {{.tokens = 1, .chosen = 1, .width = 1},
                      {.tokens = 13, .chosen = 3, .width = 7},
                      {.tokens = 40, .chosen = 2, .width = 100},
                      {.tokens = 31, .chosen = 6, .width = 33, .drops = true},
                      {.tokens = 31, .chosen = 6, .width = 33, .drops = true, .gaps = true}};

TEST(Combine, IsTheWeightedSumInEveryType) {
  Device device(DeviceKind::cpu, 0, 2);
  for (const Case& c : cases) {
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
      const Outcome o = run(device, c, dtype);
      const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
      expect_near(o.y, sums(c, values_of(o.rows), values_of(o.gates)), {1.01, 60 * roundoff(wide)},
                  "y");
      const auto rows = values_of(o.rows), gates = values_of(o.gates), dy = values_of(o.dy);
      const auto row_of = some_rows(c);
      const auto width = static_cast<size_t>(c.width);
      std::vector<double> drows(rows.size(), 0), dgates(gates.size(), 0);
      for (size_t i = 0; i < row_of.size(); ++i) {
        if (row_of[i] < 0) continue;
        for (size_t j = 0; j < width; ++j) {
          const double slope = dy[i / static_cast<size_t>(c.chosen) * width + j];
          const size_t at = static_cast<size_t>(row_of[i]) * width + j;
          drows[at] = gates[i] * slope;
          dgates[i] += slope * rows[at];
        }
      }
      expect_near(o.drows, drows, {1.01, 0}, "drows");
      expect_near(o.dgates, dgates, {1, 400 * roundoff(wide)}, "dgates");
    }
  }
}

TEST(Combine, GradientsByComplexStep) {
  Device device;
  const Case c = cases[3];
  const Outcome o = run(device, c, Dtype::f64);
  const auto rows = values_of(o.rows), gates = values_of(o.gates), dy = values_of(o.dy);
  expect_complex_step(
      [&](const std::vector<Complex>& g) { return weighted_sum(sums(c, complex_of(rows), g), dy); },
      gates, values_of(o.dgates), "dgates");
  expect_complex_step(
      [&](const std::vector<Complex>& r) {
        return weighted_sum(sums(c, r, complex_of(gates)), dy);
      },
      rows, values_of(o.drows), "drows");
}

TEST(Combine, SameBitsOnAnyNumberOfThreads) {
  const Case c{.tokens = 500, .chosen = 3, .width = 77, .drops = true};
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    Device one(DeviceKind::cpu, 0, 1), three(DeviceKind::cpu, 0, 3);
    const Outcome a = run(one, c, dtype), b = run(three, c, dtype);
    expect_same_bits(a.y, b.y, "y");
    expect_same_bits(a.drows, b.drows, "drows");
    expect_same_bits(a.dgates, b.dgates, "dgates");
  }
}

TEST(Combine, SkipsEmptyGradients) {
  Device device;
  Stream stream = Stream::immediate(device);
  EXPECT_FALSE(Combine::grad_input(stream, {}, {}, {Tensor()})[0]);
}

}  // namespace
}  // namespace shoestring
