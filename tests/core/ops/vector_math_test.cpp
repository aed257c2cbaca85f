#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/core/ops/vector_math_test.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

void exp_row(const float* x, float* y, int64_t n) {
  for_lanes(n,
            [&](int64_t i, auto lanes) HWY_ATTR { store(exp(load(x + i, lanes)), y + i, lanes); });
}
void sigmoid_row(const float* x, float* y, int64_t n) {
  for_lanes(
      n, [&](int64_t i, auto lanes) HWY_ATTR { store(sigmoid(load(x + i, lanes)), y + i, lanes); });
}
void round_row(const float* x, BFloat16* y, int64_t n) {
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR { store(load(x + i, lanes), y + i, lanes); });
}
void widen_row(const BFloat16* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR { store(load(x + i, lanes), y + i, lanes); });
}
void round_in_place(const float* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, auto lanes)
                   HWY_ATTR { store(round_as<BFloat16>(load(x + i, lanes)), y + i, lanes); });
}
void sum_and_maximum(const float* x, float* y, int64_t n) {
  Floats total = set(0), most = set(-1e30f);
  for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR {
    total = hn::Add(total, load(x + i, lanes));
    most = hn::Max(most, load(x + i, lanes));
  });
  y[0] = sum(total);
  y[1] = maximum(most);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <limits>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

HWY_EXPORT(exp_row);
HWY_EXPORT(sigmoid_row);
HWY_EXPORT(round_row);
HWY_EXPORT(widen_row);
HWY_EXPORT(round_in_place);
HWY_EXPORT(sum_and_maximum);

// Runs the body once for every instruction set that this processor has.
void for_each_target(const std::function<void()>& body) {
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(VectorMath, ExpIsWithinTwoUlpOverItsWholeRange) {
  std::vector<float> x;
  for (double v = -87.3; v < 88.3; v += 0.00371) x.push_back(static_cast<float>(v));
  for (double v = 1e-9; v < 1; v *= 1.7) {
    x.push_back(static_cast<float>(v));
    x.push_back(static_cast<float>(-v));
  }
  for_each_target([&] {
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(exp_row)(x.data(), y.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(static_cast<double>(x[i]));
      ASSERT_NEAR(y[i], exact, exact * 0x1p-22) << "x = " << x[i];
    }
  });
}

TEST(VectorMath, ExpKeepsItsPromisesAtTheEdges) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0, -infinity, -88, -1e30f, 89, infinity, std::nanf(""), -0.0f};
  for_each_target([&] {
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(exp_row)(x.data(), y.data(), static_cast<int64_t>(x.size()));
    EXPECT_EQ(y[0], 1.0f);
    EXPECT_EQ(y[1], 0.0f);
    EXPECT_EQ(y[2], 0.0f);
    EXPECT_EQ(y[3], 0.0f);
    EXPECT_NEAR(y[4], 2.4e38f, 0.1e38f);
    EXPECT_EQ(y[5], y[4]);
    EXPECT_TRUE(std::isnan(y[6]));
    EXPECT_EQ(y[7], 1.0f);
  });
}

TEST(VectorMath, Sigmoid) {
  std::vector<float> x;
  for (float v = -80; v <= 80; v += 0.13f) x.push_back(v);
  for_each_target([&] {
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(sigmoid_row)(x.data(), y.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = 1 / (1 + std::exp(-static_cast<double>(x[i])));
      ASSERT_NEAR(y[i], exact, exact * 0x1p-21) << "x = " << x[i];
    }
  });
}

TEST(VectorMath, Bf16RoundsLikeTheScalarTypeForEveryKindOfNumber) {
  std::vector<float> x = {0.0f,
                          -0.0f,
                          1.0f,
                          std::nanf(""),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(),
                          3.4e38f,
                          1e-45f};
  // All 16 upper bits that matter, with lower halves below, at and above the tie.
  for (uint32_t high = 0; high < 0x10000u; high += 13) {
    for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  for_each_target([&] {
    const auto n = static_cast<int64_t>(x.size());
    std::vector<BFloat16> y(x.size());
    std::vector<float> in_place(x.size()), back(x.size());
    HWY_DYNAMIC_DISPATCH(round_row)(x.data(), y.data(), n);
    HWY_DYNAMIC_DISPATCH(round_in_place)(x.data(), in_place.data(), n);
    HWY_DYNAMIC_DISPATCH(widen_row)(y.data(), back.data(), n);
    for (size_t i = 0; i < x.size(); ++i) {
      const BFloat16 expected(x[i]);
      ASSERT_EQ(y[i].bits, expected.bits) << x[i];
      ASSERT_EQ(std::bit_cast<uint32_t>(in_place[i]) >> 16, expected.bits) << x[i];
      ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), uint32_t{expected.bits} << 16) << x[i];
    }
  });
}

TEST(VectorMath, RowsOfAnyLengthTouchNothingBeyondTheirEnd) {
  for_each_target([&] {
    for (int64_t n = 0; n <= 70; ++n) {
      std::vector<float> x(static_cast<size_t>(n), 2.0f);  // exact size: sanitizers see overruns
      std::vector<float> y(static_cast<size_t>(n) + 1, -7.0f), facts(2);
      HWY_DYNAMIC_DISPATCH(exp_row)(x.data(), y.data(), n);
      EXPECT_EQ(y.back(), -7.0f);
      HWY_DYNAMIC_DISPATCH(sum_and_maximum)(x.data(), facts.data(), n);
      EXPECT_EQ(facts[0], 2.0f * static_cast<float>(n));
      EXPECT_EQ(facts[1], n > 0 ? 2.0f : -1e30f);
    }
  });
}

}  // namespace
}  // namespace shoestring
#endif  // HWY_ONCE
