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

// Any piece of any cut of a matrix has the values of the whole one.
TEST(ParamStore, InitialValuesOfPieces) {
  Device device(DeviceKind::cpu, 0, 1);
  std::vector<ParamInfo> infos = some_params();
  const ParamStore whole(device, infos, Dtype::f32);
  const Param& all = whole.param("embedding.weight");
  std::vector<float> values(800), piece(123);
  initial_values(all, 7, 0, values);
  initial_values(all, 7, 401, piece);
  EXPECT_TRUE(std::equal(piece.begin(), piece.end(), values.begin() + 401));
  infos[0].shape = {30, 4};  // rows 20 to 29 and 60 to 79, columns 4 to 7
  infos[0].shard = {.whole = {100, 8}, .rows = {{0, 20, 10}, {10, 60, 20}}, .first_column = 4};
  const ParamStore cut(device, infos, Dtype::f32);
  for (const int64_t begin : {0, 5, 37, 100}) {
    std::vector<float> part(20);
    initial_values(cut.param("embedding.weight"), 7, begin, part);
    for (int64_t i = 0; i < 20; ++i) {
      const int64_t row = (begin + i) / 4, column = (begin + i) % 4;
      const int64_t at = (row < 10 ? 20 + row : 50 + row) * 8 + 4 + column;
      EXPECT_EQ(part[static_cast<size_t>(i)], values[static_cast<size_t>(at)]) << begin << " " << i;
    }
  }
}

TEST(ParamStore, HasMemoryForWhatIsAsked) {
  Device device(DeviceKind::cpu, 0, 1);
  const auto held = [&](MemoryKind kind) { return device.ledger().current(kind); };
  {
    ParamStore store(device, some_params(), Dtype::bf16, {.masters = false, .gradients = false});
    EXPECT_EQ(held(MemoryKind::weights), store.elements() * 2);
    EXPECT_EQ(held(MemoryKind::master_weights) + held(MemoryKind::gradients), 0);
    EXPECT_TRUE(store.master().empty() && store.gradients().empty());
    EXPECT_THROW(store.master(store.params()[0]), Error);
    EXPECT_THROW(store.gradient(store.params()[0]), Error);
    ParamStore full(device, some_params(), Dtype::bf16);
    store.initialise(9);
    full.initialise(9);
    store.zero_gradients();
    for (size_t i = 0; i < store.compute_copy().size(); ++i) {
      EXPECT_EQ(store.compute_copy()[i].bits, full.compute_copy()[i].bits) << i;
    }
  }
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    ParamStore store(device, some_params(), dtype,
                     {.weights = false, .masters = false, .gradients = false});
    EXPECT_EQ(device.ledger().current_total(), 0);
    store.initialise(9);
    EXPECT_THROW(store.weight(store.params()[0]), Error);
    EXPECT_TRUE(store.compute_copy().empty());
    EXPECT_EQ(store.elements(), 832 + 64 + 832);
  }
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
