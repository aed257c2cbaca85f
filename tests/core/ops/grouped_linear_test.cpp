#include "core/ops/grouped_linear.h"

#include <numeric>

#include "core/matmul.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Case {
  std::vector<int32_t> counts;
  int64_t spare, inputs, outputs;  // rows behind the last expert's

  int64_t used() const { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }
  int64_t rows() const { return used() + spare; }
  int64_t experts() const { return static_cast<int64_t>(counts.size()); }
};

struct Outcome {
  Tensor offsets, x, w, dy, y, dx, dw;
};

Outcome run(Device& device, const Case& c, Dtype dtype) {
  Stream stream = Stream::immediate(device);
  const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const int64_t height = c.experts() * c.outputs;
  std::vector<int32_t> offsets = {0};
  for (int32_t n : c.counts) offsets.push_back(offsets.back() + n);
  Outcome o;
  o.offsets = make_ids(device, offsets);
  o.x = make_tensor(device, {c.rows(), c.inputs}, dtype, random_values(c.rows() * c.inputs, 1));
  o.w = make_tensor(device, {height, c.inputs}, dtype, random_values(height * c.inputs, 2));
  o.dy = make_tensor(device, {c.rows(), c.outputs}, dtype, random_values(c.rows() * c.outputs, 3));
  GroupedLinear::InputSaved input;
  GroupedLinear::WeightSaved weight;
  o.y = GroupedLinear::forward(stream, {}, {o.x, o.offsets}, {o.w}, input, weight)[0];
  o.dx = GroupedLinear::grad_input(stream, {}, input, {o.w}, {o.dy})[0];
  o.dw = make_tensor(device, {height, c.inputs}, wide,
                     std::vector<double>(static_cast<size_t>(height * c.inputs), 0.5));
  GroupedLinear::grad_weight(stream, {}, weight, {o.dy}, {o.dw});
  return o;
}

std::vector<Case> cases() {
  return {{{3, 0, 5, 1}, 0, 7, 4},
          {{0, 0, 2}, 3, 16, 9},
          {{1}, 0, 1, 1},
          {{40, 2, 0, 300, 17, 1}, 11, 33, 260},  // unequal, more outputs than one piece takes
          {{2500, 9, 1300}, 0, 24, 20}};          // several pieces of rows
}

// By definition, one expert after the other in doubles.
struct Expected {
  std::vector<double> y, dx, dw;
};
Expected expected(const Case& c, const Outcome& o) {
  const auto x = values_of(o.x), w = values_of(o.w), dy = values_of(o.dy);
  const auto in = static_cast<size_t>(c.inputs), out = static_cast<size_t>(c.outputs);
  Expected want{std::vector<double>(dy.size(), 0), std::vector<double>(x.size(), 0),
                std::vector<double>(w.size(), 0.5)};
  size_t row = 0;
  for (size_t e = 0; e < c.counts.size(); ++e) {
    const double* matrix = w.data() + e * out * in;
    for (int32_t n = 0; n < c.counts[e]; ++n, ++row) {
      for (size_t j = 0; j < out; ++j) {
        const double slope = dy[row * out + j];
        for (size_t i = 0; i < in; ++i) {
          want.y[row * out + j] += x[row * in + i] * matrix[j * in + i];
          want.dx[row * in + i] += slope * matrix[j * in + i];
          want.dw[(e * out + j) * in + i] += slope * x[row * in + i];
        }
      }
    }
  }
  return want;
}

TEST(GroupedLinear, EachExpertMultipliesItsRows) {
  Device device(DeviceKind::cpu, 0, 2);
  for (const Case& c : cases()) {
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
      if (dtype == Dtype::f64 && c.rows() > 1000) continue;  // plain loops
      const Outcome o = run(device, c, dtype);
      const Expected want = expected(c, o);
      const double inner = 2000 * roundoff(dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32);
      expect_near(o.y, want.y, {1.01, inner}, "y");
      expect_near(o.dx, want.dx, {1.01, inner}, "dx");
      expect_near(o.dw, want.dw, {1.01, 4 * inner}, "dw");
    }
  }
}

// Rows of two sources behind each other: the bits of one call a source.
TEST(GroupedLinear, SourcesAreCallsOneAfterTheOther) {
  Device device(DeviceKind::cpu, 0, 3);
  Stream stream = Stream::immediate(device);
  constexpr int64_t in = 33, out = 260, experts = 3;
  // By (expert, source).
  const std::vector<int32_t> counts = {40, 7, 0, 0, 0, 300};
  std::vector<int32_t> borders = {0};
  for (int32_t n : counts) borders.push_back(borders.back() + n);
  const int64_t rows = borders.back() + 5;
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
    const Tensor x = make_tensor(device, {rows, in}, dtype, random_values(rows * in, 1));
    const Tensor w =
        make_tensor(device, {experts * out, in}, dtype, random_values(experts * out * in, 2));
    const Tensor dy = make_tensor(device, {rows, out}, dtype, random_values(rows * out, 3));
    auto multiply = [&](const std::vector<int32_t>& at, int64_t sources, const Tensor& from,
                        const Tensor& slope, const Tensor& dw) {
      GroupedLinear::InputSaved input;
      GroupedLinear::WeightSaved weight;
      const GroupedLinear::Attributes a{.sources = sources};
      const Tensor offsets = make_ids(device, at);
      std::array<Tensor, 2> result;
      result[0] = GroupedLinear::forward(stream, a, {from, offsets}, {w}, input, weight)[0];
      result[1] = GroupedLinear::grad_input(stream, a, input, {w}, {slope})[0];
      GroupedLinear::grad_weight(stream, a, weight, {slope}, {dw});
      return result;
    };
    const Tensor dw = Tensor::zeros(device, w.shape(), wide);
    const auto got = multiply(borders, 2, x, dy, dw);
    const Tensor want = Tensor::zeros(device, w.shape(), wide);
    for (size_t s = 0; s < 2; ++s) {
      std::vector<int32_t> at = {0};
      for (size_t e = 0; e < experts; ++e) at.push_back(at.back() + counts[2 * e + s]);
      Tensor xs(device, {at.back(), in}, dtype), dys(device, {at.back(), out}, dtype);
      auto copy = [&](size_t e, const Tensor& to, const Tensor& from) {
        const Tensor part = from.rows(borders[2 * e + s], borders[2 * e + s + 1]);
        std::memcpy(to.rows(at[e], at[e + 1]).raw(), part.raw(), part.bytes());
      };
      for (size_t e = 0; e < experts; ++e) {
        copy(e, xs, x);
        copy(e, dys, dy);
      }
      const auto one = multiply(at, 1, xs, dys, want);
      for (size_t e = 0; e < experts; ++e) {
        for (size_t i = 0; i < 2; ++i) {
          expect_same_bits(got[i].rows(borders[2 * e + s], borders[2 * e + s + 1]),
                           one[i].rows(at[e], at[e + 1]), i == 0 ? "y" : "dx");
        }
      }
    }
    expect_same_bits(dw, want, "dw");
    EXPECT_THROW(multiply(borders, 4, x, dy, dw), Error);  // 6 segments of 4 sources
  }
}

// One product an expert: whatever other experts are there, an expert's numbers are those of its own
// product in exact mode.
TEST(GroupedLinear, EqualsSingleExactProductsBitForBit) {
  Device device(DeviceKind::cpu, 0, 3);
  for (const Case& c : cases()) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      const Outcome o = run(device, c, dtype);
      Tensor y = Tensor::zeros(device, o.y.shape(), dtype);
      Tensor dw = make_tensor(device, o.dw.shape(), Dtype::f32,
                              std::vector<double>(static_cast<size_t>(o.dw.elements()), 0.5));
      for (int64_t e = 0; e < c.experts(); ++e) {
        const int32_t begin = o.offsets.data<int32_t>()[e], end = o.offsets.data<int32_t>()[e + 1];
        if (begin == end) continue;
        const Tensor w = o.w.rows(e * c.outputs, (e + 1) * c.outputs);
        matmul(device, y.rows(begin, end), o.x.rows(begin, end), w,
               {.transpose_b = true, .exact = true});
        matmul(device, dw.rows(e * c.outputs, (e + 1) * c.outputs), o.dy.rows(begin, end),
               o.x.rows(begin, end), {.transpose_a = true, .accumulate = true, .exact = true});
      }
      expect_same_bits(o.y, y, "y");
      expect_same_bits(o.dw, dw, "dw");
    }
  }
}

TEST(GroupedLinear, SameBitsOnAnyNumberOfThreads) {
  for (const Case& c : cases()) {
    Device one(DeviceKind::cpu, 0, 1);
    const Outcome first = run(one, c, Dtype::f32);
    for (int threads : {2, 5}) {
      Device device(DeviceKind::cpu, 0, threads);
      const Outcome other = run(device, c, Dtype::f32);
      expect_same_bits(other.y, first.y, "y");
      expect_same_bits(other.dx, first.dx, "dx");
      expect_same_bits(other.dw, first.dw, "dw");
    }
  }
}

// Experts with few rows round otherwise, the others give the same bits.
TEST(GroupedLinear, ThinProductsAgree) {
  Device device(DeviceKind::cpu, 0, 2);
  Stream stream = Stream::immediate(device);
  for (const Case& c : cases()) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
      const Outcome o = run(device, c, dtype);
      GroupedLinear::InputSaved input;
      GroupedLinear::WeightSaved weight;
      const Tensor y =
          GroupedLinear::forward(stream, {.thin = true}, {o.x, o.offsets}, {o.w}, input, weight)[0];
      expect_near(y, values_of(o.y), {.roundings = 2, .absolute = 1e-4}, "y");
      int64_t first = 0;
      for (int32_t n : c.counts) {
        if (n > 4) expect_same_bits(y.rows(first, first + n), o.y.rows(first, first + n), "expert");
        first += n;
      }
    }
  }
}

TEST(GroupedLinear, GradientsByComplexStep) {
  Device device;
  const Case c = cases()[0];
  const Outcome o = run(device, c, Dtype::f64);
  const auto x = values_of(o.x), w = values_of(o.w), dy = values_of(o.dy);
  const auto in = static_cast<size_t>(c.inputs), out = static_cast<size_t>(c.outputs);
  auto loss = [&](const std::vector<Complex>& rows, const std::vector<Complex>& matrices) {
    Complex sum = 0;
    size_t row = 0;
    for (size_t e = 0; e < c.counts.size(); ++e) {
      for (int32_t n = 0; n < c.counts[e]; ++n, ++row) {
        for (size_t j = 0; j < out; ++j) {
          for (size_t i = 0; i < in; ++i) {
            sum += dy[row * out + j] * rows[row * in + i] * matrices[(e * out + j) * in + i];
          }
        }
      }
    }
    return sum;
  };
  expect_complex_step([&](const std::vector<Complex>& p) { return loss(p, complex_of(w)); }, x,
                      values_of(o.dx), "dx");
  auto dw = values_of(o.dw);
  for (double& v : dw) v -= 0.5;
  expect_complex_step([&](const std::vector<Complex>& p) { return loss(complex_of(x), p); }, w, dw,
                      "dw");
}

TEST(GroupedLinear, RefusesWhatDoesNotFit) {
  Device device;
  Stream stream = Stream::immediate(device);
  GroupedLinear::InputSaved input;
  GroupedLinear::WeightSaved weight;
  const Tensor x = Tensor::zeros(device, {4, 3}, Dtype::f32);
  const Tensor w = Tensor::zeros(device, {6, 3}, Dtype::f32);
  auto forward = [&](const std::vector<int32_t>& offsets, const Tensor& matrices) {
    GroupedLinear::forward(stream, {}, {x, make_ids(device, offsets)}, {matrices}, input, weight);
  };
  EXPECT_NO_THROW(forward({0, 1, 4}, w));
  EXPECT_THROW(forward({0, 5, 4}, w), Error);
  EXPECT_THROW(forward({0, 1, 5}, w), Error);
  EXPECT_THROW(forward({1, 1, 4}, w), Error);
  EXPECT_THROW(forward({0, 1, 2, 3, 4}, w), Error);
  EXPECT_THROW(forward({0, 1, 4}, Tensor::zeros(device, {6, 3}, Dtype::bf16)), Error);
  EXPECT_THROW(forward({0, 1, 4}, Tensor::zeros(device, {6, 2}, Dtype::f32)), Error);
  EXPECT_FALSE(GroupedLinear::grad_input(stream, {}, input, {w}, {Tensor()})[0]);
}

}  // namespace
}  // namespace shoestring
