#include "core/fp8/product.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/check.h"
#include "tests/core/fp8/fp8_twin.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Case {
  int64_t m = 37, n = 70, k = 300;
  Fp8Encoding a, b;  // tiles as op(A) [M, K] and op(B)^T [N, K] have them
  bool transpose_a = false, transpose_b = true;
};

Fp8Product make_product(Device& device, const Case& c, Dtype result = Dtype::f32) {
  Stream stream = Stream::immediate(device);
  Fp8Encoding a = c.a, b = c.b;
  if (c.transpose_a) a.tile = a.tile.transposed();
  if (!c.transpose_b) b.tile = b.tile.transposed();
  const Shape as = c.transpose_a ? Shape{c.k, c.m} : Shape{c.m, c.k};
  const Shape bs = c.transpose_b ? Shape{c.n, c.k} : Shape{c.k, c.n};
  return {.c = Tensor::zeros(device, {c.m, c.n}, result),
          .a = quantise(stream, spread_tensor(device, as, Dtype::bf16, "a"), a),
          .b = quantise(stream, spread_tensor(device, bs, Dtype::bf16, "b"), b),
          .transpose_a = c.transpose_a,
          .transpose_b = c.transpose_b};
}

std::vector<Case> cases() {
  const Fp8Encoding row{Dtype::f8e4m3, {1, 128}, ScaleKind::plain};
  const Fp8Encoding power{Dtype::f8e4m3, {1, 128}, ScaleKind::power_of_two};
  const Fp8Encoding block{Dtype::f8e4m3, {128, 128}, ScaleKind::plain};
  const Fp8Encoding micro{Dtype::f8e4m3, {1, 32}, ScaleKind::power_of_two};
  const Fp8Encoding plain_micro{Dtype::f8e4m3, {1, 32}, ScaleKind::plain};
  const Fp8Encoding whole{Dtype::f8e5m2, {0, 0}, ScaleKind::plain};
  std::vector<Case> list;
  for (bool ta : {false, true}) {
    for (bool tb : {false, true}) {
      list.push_back({.a = row, .b = block, .transpose_a = ta, .transpose_b = tb});
      list.push_back({.a = power, .b = block, .transpose_a = ta, .transpose_b = tb});
      list.push_back({.a = power, .b = power, .transpose_a = ta, .transpose_b = tb});
      list.push_back({.a = row, .b = row, .transpose_a = ta, .transpose_b = tb});
      list.push_back({.a = micro, .b = micro, .transpose_a = ta, .transpose_b = tb});
      list.push_back({.a = plain_micro, .b = row, .transpose_a = ta, .transpose_b = tb});
      list.push_back({.a = whole, .b = whole, .transpose_a = ta, .transpose_b = tb});
    }
  }
  list.push_back({.m = 30, .n = 40, .k = 2300, .a = row, .b = block});
  list.push_back({.m = 1, .n = 1, .k = 1, .a = row, .b = block});
  list.push_back({.m = 3, .n = 200, .k = 129, .a = row, .b = block});
  return list;
}

int64_t chunk_of(const Case& c) {
  int64_t chunk = 128;
  for (const Fp8Encoding& e : {c.a, c.b}) {
    if (e.tile.columns > 0) chunk = std::min(chunk, e.tile.columns);
  }
  return chunk;
}

TEST(Fp8Product, ExactIsItsDefinitionBitForBit) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (const Case& c : cases()) {
    Fp8Product p = make_product(device, c);
    p.arithmetic.accumulator = Accumulator::exact;
    fp8_product(stream, p);
    const TwinProduct twin = twin_product(p, chunk_of(c));
    for (int64_t i = 0; i < p.c.elements(); ++i) {
      ASSERT_EQ(p.c.data<float>()[i], twin.values[static_cast<size_t>(i)])
          << c.m << "x" << c.n << "x" << c.k << " element " << i;
    }
  }
}

// Within 2^-20 of the sum of magnitudes of the true value, and so of exact.
TEST(Fp8Product, FastIsWithinTheBoundOfExact) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (const Case& c : cases()) {
    Fp8Product p = make_product(device, c);
    fp8_product(stream, p);
    const TwinProduct twin = twin_product(p, chunk_of(c));
    for (int64_t i = 0; i < p.c.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      ASSERT_NEAR(p.c.data<float>()[i], twin.values[at], 0x1p-20 * twin.magnitudes[at])
          << c.m << "x" << c.n << "x" << c.k << " element " << i;
    }
  }
}

// Scales that are folded into the operands must not make products that the processor flushes to 0.
TEST(Fp8Product, FastIsWithinTheBoundForTinyOperands) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (ScaleKind scales : {ScaleKind::plain, ScaleKind::power_of_two}) {
    for (float size : {1e-13f, 1e-16f, 1e-18f, 1e-20f}) {
      const Fp8Encoding tile{Dtype::f8e4m3, {1, 128}, scales};
      Tensor a = spread_tensor(device, {20, 300}, Dtype::f32, "a");
      Tensor b = spread_tensor(device, {30, 300}, Dtype::f32, "b");
      for (float& x : a.span<float>()) x *= size;
      for (float& x : b.span<float>()) x *= size;
      Fp8Product p{.c = Tensor::zeros(device, {20, 30}, Dtype::f32),
                   .a = quantise(stream, a, tile),
                   .b = quantise(stream, b, tile),
                   .transpose_b = true};
      fp8_product(stream, p);
      const TwinProduct twin = twin_product(p, 128);
      for (int64_t i = 0; i < p.c.elements(); ++i) {
        const auto at = static_cast<size_t>(i);
        ASSERT_NEAR(p.c.data<float>()[i], twin.values[at], 0x1p-20 * twin.magnitudes[at])
            << size << " element " << i;
      }
    }
  }
}

TEST(Fp8Product, ResultsInBf16AreRoundedOnceAndSumsAdded) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (Accumulator accumulator : {Accumulator::fast, Accumulator::exact, Accumulator::hopper}) {
    const Case c = cases()[0];
    Fp8Product p = make_product(device, c), narrow = make_product(device, c, Dtype::bf16);
    p.arithmetic.accumulator = narrow.arithmetic.accumulator = accumulator;
    fp8_product(stream, p);
    fp8_product(stream, narrow);
    std::vector<float> once(p.c.span<float>().begin(), p.c.span<float>().end());
    p.accumulate = true;
    p.c.data<float>()[5] = 3;
    fp8_product(stream, p);
    for (int64_t i = 0; i < p.c.elements(); ++i) {
      const float product = once[static_cast<size_t>(i)];
      ASSERT_EQ(narrow.c.data<BFloat16>()[i].bits, BFloat16(product).bits);
      ASSERT_EQ(p.c.data<float>()[i], i == 5 ? 3 + product : product + product);
    }
  }
}

// What exact mode rests on: a row's results are the same alone, among others and on any number of
// threads.
TEST(Fp8Product, ARowDependsOnNothingButItself) {
  Device one(DeviceKind::cpu, 0, 1), many(DeviceKind::cpu, 0, 4);
  const Case whole{.m = 100, .n = 40, .k = 300, .a = cases()[0].a, .b = cases()[0].b};
  for (Accumulator accumulator : {Accumulator::fast, Accumulator::exact, Accumulator::hopper}) {
    Fp8Product p = make_product(one, whole), q = make_product(many, whole);
    p.arithmetic.accumulator = q.arithmetic.accumulator = accumulator;
    Stream a = Stream::immediate(one), b = Stream::immediate(many);
    fp8_product(a, p);
    fp8_product(b, q);
    EXPECT_EQ(0, std::memcmp(p.c.raw(), q.c.raw(), p.c.bytes()));
    Fp8Product part = p;
    part.a.codes = p.a.codes.rows(50, 73);
    part.a.scales = p.a.scales.rows(50, 73);
    part.c = Tensor(one, {23, whole.n}, Dtype::f32);
    fp8_product(a, part);
    EXPECT_EQ(0, std::memcmp(part.c.raw(), p.c.rows(50, 73).raw(), part.c.bytes()));
  }
}

// The report's measurement: operands uniform in [0, 1), K = 4096, largest relative error.
TEST(Fp8Product, PromotionBringsTheTensorCoresErrorDown) {
  Device device;
  Stream stream = Stream::immediate(device);
  const int64_t m = 24, n = 24, k = 4096;
  const RandomStream random(5, "uniform");
  Tensor a(device, {m, k}, Dtype::f32), b(device, {n, k}, Dtype::f32);
  for (int64_t i = 0; i < m * k; ++i) {
    a.data<float>()[i] = static_cast<float>(random.uniform(static_cast<uint64_t>(i)));
    b.data<float>()[i] = static_cast<float>(random.uniform(static_cast<uint64_t>(i + m * k)));
  }
  const Fp8Encoding whole{Dtype::f8e4m3, {0, 0}, ScaleKind::plain};
  Fp8Product p{.c = Tensor(device, {m, n}, Dtype::f32),
               .a = quantise(stream, a, whole),
               .b = quantise(stream, b, whole),
               .transpose_b = true};
  const TwinProduct twin = twin_product(p, k);
  auto largest_error = [&](int64_t promotion) {
    p.arithmetic = {.accumulator = Accumulator::hopper, .promotion = promotion};
    fp8_product(stream, p);
    double largest = 0;
    for (int64_t i = 0; i < m * n; ++i) {
      const double want = static_cast<double>(twin.values[static_cast<size_t>(i)]);
      largest =
          std::max(largest, std::fabs(static_cast<double>(p.c.data<float>()[i]) - want) / want);
    }
    return largest;
  };
  const double without = largest_error(0), with = largest_error(128);
  EXPECT_GE(without, 0.01);
  EXPECT_LE(without, 0.08);
  EXPECT_LE(with, 0.001);
  EXPECT_GT(with, 0);  // it does truncate
  RecordProperty("without", cat(without));
  RecordProperty("with", cat(with));
}

// Without promotion a sum goes on as long as its scale does, whatever K is: experts have any number
// of tokens.
TEST(Fp8Product, WithoutPromotionAnyDepthIsMultiplied) {
  Device device;
  Stream stream = Stream::immediate(device);
  for (const Fp8Encoding& a : {Fp8Encoding{Dtype::f8e4m3, {1, 128}, ScaleKind::plain},
                               Fp8Encoding{Dtype::f8e4m3, {0, 0}, ScaleKind::plain}}) {
    for (int64_t k : {5, 72, 128, 200, 300}) {
      Fp8Encoding b = a;
      if (!b.tile.whole()) b.tile = {128, 128};
      Fp8Product p = make_product(device, {.k = k, .a = a, .b = b});
      p.arithmetic = {.accumulator = Accumulator::exact, .promotion = 0};
      fp8_product(stream, p);
      const TwinProduct twin = twin_product(p, a.tile.whole() ? k : 128);
      for (int64_t i = 0; i < p.c.elements(); ++i) {
        ASSERT_NEAR(p.c.data<float>()[i], twin.values[static_cast<size_t>(i)],
                    0x1p-22 * twin.magnitudes[static_cast<size_t>(i)])
            << "k " << k << " element " << i;
      }
    }
  }
}

// Scales end sums as promotion does; what has one scale for all goes as far as promotion says.
TEST(Fp8Product, PromotionDepthIsTheShortestOfAll) {
  struct {
    Accumulator accumulator;
    int64_t promotion;
    Fp8Reach a, b;
    int64_t want;
  } const cases[] = {
      {Accumulator::exact, 128, {128}, {128}, 128},  {Accumulator::exact, 0, {128}, {128}, 128},
      {Accumulator::hopper, 512, {128}, {0}, 128},   {Accumulator::hopper, 64, {128}, {0}, 64},
      {Accumulator::hopper, 512, {0}, {0}, 512},     {Accumulator::hopper, 0, {0}, {0}, 0},
      {Accumulator::exact, 128, {32}, {128}, 32},    {Accumulator::fast, 512, {0}, {0}, 128},
      {Accumulator::fast, 0, {0}, {0}, 128},         {Accumulator::fast, 64, {128}, {0}, 64},
      {Accumulator::fast, 128, {32}, {0}, 32},       {Accumulator::fast, 128, {32, true}, {0}, 128},
      {Accumulator::exact, 128, {32, true}, {0}, 32}};
  for (const auto& c : cases) {
    const Fp8Arithmetic arithmetic{.accumulator = c.accumulator, .promotion = c.promotion};
    EXPECT_EQ(promotion_depth(arithmetic, c.a, c.b), c.want)
        << static_cast<int>(c.accumulator) << " " << c.promotion << " " << c.a.depth;
    EXPECT_EQ(promotion_depth(arithmetic, c.b, c.a), c.want);
  }
}

TEST(Fp8Product, NanReachesTheResult) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor a = spread_tensor(device, {8, 256}, Dtype::f32, "a");
  a.data<float>()[3 * 256 + 200] = std::numeric_limits<float>::infinity();
  const Fp8Encoding row{Dtype::f8e4m3, {1, 128}, ScaleKind::plain};
  for (Accumulator accumulator : {Accumulator::fast, Accumulator::exact, Accumulator::hopper}) {
    Fp8Product p{.c = Tensor(device, {8, 5}, Dtype::f32),
                 .a = quantise(stream, a, row),
                 .b = quantise(stream, spread_tensor(device, {5, 256}, Dtype::f32, "b"), row),
                 .transpose_b = true,
                 .arithmetic = {.accumulator = accumulator}};
    fp8_product(stream, p);
    for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(p.c.data<float>()[i]), i / 5 == 3) << i;
  }
}

TEST(Fp8Product, SaysWhatDoesNotFit) {
  Device device;
  Stream stream = Stream::immediate(device);
  Fp8Product p = make_product(device, {.a = cases()[0].a, .b = cases()[0].b});
  Fp8Product other = p;
  other.c = Tensor(device, {37, 71}, Dtype::f32);
  EXPECT_THROW(fp8_product(stream, other), Error);
  other = p;
  other.c = Tensor(device, {37, 70}, Dtype::bf16);
  other.accumulate = true;
  EXPECT_THROW(fp8_product(stream, other), Error);
  other = make_product(device, {.a = {Dtype::f8e4m3, {128, 1}}, .b = cases()[0].b});
  EXPECT_THROW(fp8_product(stream, other), Error);  // a scale for every k
  other = make_product(device, {.a = {Dtype::f8e4m3, {1, 96}}, .b = cases()[0].b});
  EXPECT_THROW(fp8_product(stream, other), Error);
}

}  // namespace
}  // namespace shoestring
