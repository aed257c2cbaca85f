#include "core/row_travel.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/core/halving_travel.h"

namespace shoestring {
namespace {

using testing::HalvingTravel;

Tensor counting(Device& device, int64_t rows) {
  Tensor t(device, {rows, 2}, Dtype::f64);
  for (size_t i = 0; i < t.span<double>().size(); ++i) t.span<double>()[i] = 1.0 + double(i * i);
  return t;
}

// f doubles rows, and is told of each before it is asked for it.
struct Doubling {
  std::map<int64_t, int> read, made;
  LinearRows rows() {
    return {.columns = 2,
            .read =
                [this](const Tensor&, int64_t begin, int64_t end) {
                  for (int64_t i = begin; i < end; ++i) ++read[i];
                },
            .multiply =
                [this](const Tensor& argument, int64_t first, const Tensor& out) {
                  for (int64_t i = 0; i < out.rows(); ++i) {
                    EXPECT_EQ(read[first + i], 1);
                    ++made[first + i];
                  }
                  const Tensor in = argument.rows(first, first + out.rows());
                  for (size_t i = 0; i < out.span<double>().size(); ++i) {
                    out.span<double>()[i] = 2 * in.span<double>()[i];
                  }
                }};
  }
};

Tensor through(Stream& stream, RowTravel* edge, bool back, const Tensor& x) {
  if (edge == nullptr) return x;
  const int64_t rows = back ? edge->rows_before(x.rows()) : edge->rows_beyond(x.rows());
  Tensor y(stream.device(), {rows, x.columns()}, x.dtype());
  back ? edge->cross_back(stream, x, y, {}) : edge->cross(stream, x, y, {});
  return y;
}

TEST(CrossLinear, EveryRowIsReadAndMultipliedOnce) {
  Device device;
  Stream stream = Stream::immediate(device);
  HalvingTravel one, two;
  for (const Edges edges : {Edges{}, Edges{.in = &one}, Edges{.out = &two}, Edges{&one, &two}}) {
    for (const bool back : {false, true}) {
      const Tensor x = counting(device, 20);
      Doubling f;
      const Crossed c = back ? cross_linear_back(stream, edges, x, f.rows())
                             : cross_linear(stream, edges, x, f.rows());
      const Tensor argument = through(stream, back ? edges.out : edges.in, back, x);
      ASSERT_EQ(c.argument.shape(), argument.shape());
      EXPECT_TRUE(std::ranges::equal(c.argument.span<double>(), argument.span<double>()));
      const Tensor half = through(stream, back ? edges.in : edges.out, back, argument);
      ASSERT_EQ(c.result.shape(), half.shape());
      for (size_t i = 0; i < half.span<double>().size(); ++i) {
        EXPECT_EQ(c.result.span<double>()[i], 2 * half.span<double>()[i]);
      }
      EXPECT_EQ(static_cast<int64_t>(f.made.size()), argument.rows());
      for (const auto& [row, times] : f.made) EXPECT_EQ(times, 1) << row;
      for (const auto& [row, times] : f.read) EXPECT_EQ(times, 1) << row;
    }
  }
}

// Without an edge in front the argument is x itself, not a copy.
TEST(CrossLinear, CopiesNothingWithoutAnEdge) {
  Device device;
  Stream stream = Stream::immediate(device);
  HalvingTravel out;
  const Tensor x = counting(device, 6);
  Doubling f;
  EXPECT_EQ(cross_linear(stream, {.out = &out}, x, f.rows()).argument.raw(), x.raw());
}

}  // namespace
}  // namespace shoestring
