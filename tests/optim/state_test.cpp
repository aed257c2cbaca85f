#include "optim/state.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

template <class T>
StateTensor piece(Device& device, int64_t begin, const std::vector<T>& values,
                  std::string kind = "m") {
  const int64_t n = static_cast<int64_t>(values.size());
  return {"w", std::move(kind), begin, begin + n,
          Tensor::from(device, {n}, std::span<const T>(values))};
}

TEST(State, CopiesWhatPiecesShare) {
  Device device;
  const StateTensor saved = piece<float>(device, 10, {1, 2, 3, 4});
  const std::vector<StateTensor> own = {piece<float>(device, 8, {0, 0, 0}),
                                        piece<float>(device, 12, {0, 0, 0}),
                                        piece<float>(device, 10, {9, 9}, "v")};
  EXPECT_EQ(load_state(saved, own), 3);
  EXPECT_EQ(own[0].values.span<float>()[2], 1);
  EXPECT_EQ(own[1].values.span<float>()[0], 3);
  EXPECT_EQ(own[1].values.span<float>()[1], 4);
  EXPECT_EQ(own[1].values.span<float>()[2], 0);
  EXPECT_EQ(own[2].values.span<float>()[0], 9);
}

TEST(State, ConvertsBetweenTypes) {
  Device device;
  const std::vector<StateTensor> narrow = {piece<BFloat16>(device, 0, {BFloat16(0.0f)})};
  EXPECT_EQ(load_state(piece<float>(device, 0, {1.003f}), narrow), 1);
  EXPECT_EQ(static_cast<float>(narrow[0].values.span<BFloat16>()[0]), 1.0f);
  const std::vector<StateTensor> wide = {piece<float>(device, 0, {0})};
  EXPECT_EQ(load_state(piece<BFloat16>(device, 0, {BFloat16(2.5f)}), wide), 1);
  EXPECT_EQ(wide[0].values.span<float>()[0], 2.5f);
}

TEST(State, RefusesDamage) {
  Device device;
  StateTensor saved = piece<float>(device, 0, {1, 2});
  saved.end = 5;
  EXPECT_THROW(load_state(saved, {}), Error);
  const std::vector<StateTensor> own = {piece<float>(device, 0, {0})};
  EXPECT_THROW(load_state(piece<int32_t>(device, 0, {1}), own), Error);
}

}  // namespace
}  // namespace shoestring
