#include "parallel/comm/fold.h"

#include <gtest/gtest.h>

#include <limits>

namespace shoestring {
namespace {

TEST(Fold, Bf16IsSummedInF32AndRoundedOnce) {
  // 256 + 1 + 1: rounding after each addition would stay at 256.
  std::vector<BFloat16> a{BFloat16(256.0f)}, b{BFloat16(1.0f)}, c{BFloat16(1.0f)}, out(1);
  const View in[] = {view_of(std::span(a)), view_of(std::span(b)), view_of(std::span(c))};
  fold(in, buffer_of(std::span(out)), Reduce::sum);
  EXPECT_EQ(static_cast<float>(out[0]), 258.0f);
}

TEST(Fold, HalfPrecision) {
  std::vector<uint16_t> a{float_to_half(1.5f)}, b{float_to_half(-4.0f)}, out(1);
  const auto view = [](std::vector<uint16_t>& x) {
    return View{reinterpret_cast<const std::byte*>(x.data()), 1, Dtype::f16};
  };
  const View in[] = {view(a), view(b)};
  const Buffer to{reinterpret_cast<std::byte*>(out.data()), 1, Dtype::f16};
  fold(in, to, Reduce::sum);
  EXPECT_EQ(half_to_float(out[0]), -2.5f);
  fold(in, to, Reduce::min);
  EXPECT_EQ(half_to_float(out[0]), -4.0f);
}

TEST(Fold, OrderIsThatOfTheInputs) {
  std::vector<float> a{1e8f}, b{-1e8f}, c{1.0f}, out(1);
  const View first[] = {view_of(std::span(a)), view_of(std::span(b)), view_of(std::span(c))};
  fold(first, buffer_of(std::span(out)), Reduce::sum);
  EXPECT_EQ(out[0], 1.0f);
  const View second[] = {view_of(std::span(a)), view_of(std::span(c)), view_of(std::span(b))};
  fold(second, buffer_of(std::span(out)), Reduce::sum);
  EXPECT_EQ(out[0], 0.0f);
}

TEST(Fold, SignedIntegersWrap) {
  std::vector<int32_t> a{std::numeric_limits<int32_t>::max()}, b{1}, out(1);
  const View in[] = {view_of(std::span(a)), view_of(std::span(b))};
  fold(in, buffer_of(std::span(out)), Reduce::sum);
  EXPECT_EQ(out[0], std::numeric_limits<int32_t>::min());
  fold(in, buffer_of(std::span(out)), Reduce::max);
  EXPECT_EQ(out[0], std::numeric_limits<int32_t>::max());
}

TEST(Fold, InPlaceOverSeveralBlocks) {
  std::vector<double> a(5000), b(5000, 0.5);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<double>(i);
  const View in[] = {view_of(std::span(a)), view_of(std::span(b))};
  fold(in, buffer_of(std::span(a)), Reduce::sum);
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], static_cast<double>(i) + 0.5);
}

TEST(Fold, UnlikeInputsAreAnError) {
  std::vector<float> a(2), b(3);
  const View in[] = {view_of(std::span(a)), view_of(std::span(b))};
  EXPECT_THROW(fold(in, buffer_of(std::span(a)), Reduce::sum), Error);
  EXPECT_THROW(fold({}, buffer_of(std::span(a)), Reduce::sum), Error);
  EXPECT_THROW(add_into(a, b), Error);
}

TEST(Fold, AddInto) {
  std::vector<float> acc{1, 2}, x{0.5f, -2};
  add_into(acc, x);
  EXPECT_EQ(acc, (std::vector<float>{1.5f, 0}));
}

}  // namespace
}  // namespace shoestring
