#include "core/param.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"

namespace shoestring {
namespace {

std::vector<ParamInfo> some_params() {
  return {{.name = "embedding.weight", .shape = {100, 8}, .deviation = 0.5},
          {.name = "norm.gain", .shape = {9}, .deviation = 0, .fill = 1},
          {.name = "head.weight", .shape = {100, 8}, .deviation = 0.1}};
}

TEST(ParamStore, OffsetsAreAlignedAndPaddingIsZero) {
  Device device;
  ParamStore store(device, some_params(), Dtype::f32);
  EXPECT_EQ(store.elements(), 832 + 64 + 832);
  EXPECT_EQ(store.parameters(), 800 + 9 + 800);
  EXPECT_EQ(store.param("norm.gain").offset, 832);
  store.initialise(1);
  EXPECT_EQ(store.master()[832], 1.0f);
  EXPECT_EQ(store.master()[832 + 9], 0.0f);
  EXPECT_EQ(store.weight(store.param("norm.gain")).raw(),
            store.master(store.param("norm.gain")).raw());
}

TEST(ParamStore, InitialValuesDependOnNameSeedAndIndexOnly) {
  Device one(DeviceKind::cpu, 0, 1), three(DeviceKind::cpu, 0, 3);
  ParamStore a(one, some_params(), Dtype::f32);
  auto reordered = some_params();
  std::swap(reordered[0], reordered[2]);
  ParamStore b(three, reordered, Dtype::f32);
  a.initialise(5);
  b.initialise(5);
  const auto x = a.master(a.param("head.weight")).span<float>();
  const auto y = b.master(b.param("head.weight")).span<float>();
  EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin()));
  double square = 0;
  for (float v : x) square += static_cast<double>(v) * v;
  EXPECT_NEAR(std::sqrt(square / 800), 0.1, 0.01);
}

TEST(ParamStore, Bf16CopiesFollowTheMasters) {
  Device device;
  ParamStore store(device, some_params(), Dtype::bf16);
  store.initialise(2);
  const Param& p = store.param("head.weight");
  const float master = store.master(p).data<float>()[3];
  EXPECT_EQ(store.weight(p).data<BFloat16>()[3].bits, BFloat16(master).bits);
  store.master(p).data<float>()[3] = 2.5f;
  store.refresh_compute(p.offset, p.offset + p.elements);
  EXPECT_EQ(static_cast<float>(store.weight(p).data<BFloat16>()[3]), 2.5f);
  EXPECT_EQ(device.ledger().current(MemoryKind::master_weights), store.elements() * 4);
  EXPECT_EQ(device.ledger().current(MemoryKind::weights), store.elements() * 2);
}

TEST(ParamStore, UnknownNamesGetASuggestion) {
  Device device;
  ParamStore store(device, some_params(), Dtype::f32);
  try {
    store.param("head.wieght");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("head.weight"), std::string::npos) << e.what();
  }
}

TEST(ParamStore, StatesBeginWithZerosAndAreShared) {
  Device device;
  ParamStore store(device, some_params(), Dtype::bf16);
  EXPECT_TRUE(store.states().empty());
  store.state("layers.1.moe.router.bias", {3}).data<float>()[1] = 2;
  const Tensor again = store.state("layers.1.moe.router.bias", {3});
  EXPECT_EQ(again.data<float>()[0], 0);
  EXPECT_EQ(again.data<float>()[1], 2);
  ASSERT_EQ(store.states().size(), 1u);
  EXPECT_EQ(store.states()[0].name, "layers.1.moe.router.bias");
  EXPECT_THROW(store.state("layers.1.moe.router.bias", {4}), Error);
}

}  // namespace
}  // namespace shoestring
