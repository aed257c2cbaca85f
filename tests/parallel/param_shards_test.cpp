#include "parallel/param_shards.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

std::vector<ParamInfo> infos() {
  return {{.name = "a.weight", .shape = {50, 8}},
          {.name = "b.gain", .shape = {9}, .deviation = 0, .fill = 1},
          {.name = "c.weight", .shape = {100, 8}}};
}
const std::vector<FlatRange> owned = {{64, 192}, {448, 640}};
constexpr int64_t own = 128 + 192;

struct Case {
  Case(int64_t stage, Dtype dtype, bool offload)
      : store(device, infos(), dtype, memory_of_stage(stage, dtype, offload)),
        shards({.store = store,
                .owned = stage == 0 ? std::vector<FlatRange>{{0, store.elements()}} : owned,
                .zero_stage = stage,
                .host = offload ? &host : nullptr}) {
    shards.initialise(3);
  }
  Device device{DeviceKind::cpu, 0, 1}, host{DeviceKind::cpu, 0, 1};
  ParamStore store;
  ParamShards shards;
  int64_t bytes(Device& d, MemoryKind kind) const { return d.ledger().current(kind); }
};

// Value `i` of the numbering, wherever it lies.
template <class T>
T value_at(const FlatSpan<T>& span, int64_t i) {
  if (span.ranges.empty()) return span.values[static_cast<size_t>(i)];
  int64_t at = 0;
  for (const FlatRange& r : span.ranges) {
    if (i >= r.begin && i < r.end) return span.values[static_cast<size_t>(at + i - r.begin)];
    at += r.elements();
  }
  fail("not owned");
}

TEST(ParamShards, HoldTheOwnedPartsOfEveryStage) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    Device device(DeviceKind::cpu, 0, 1);
    ParamStore whole(device, infos(), dtype);
    whole.initialise(3);
    for (const int64_t stage : {0, 1, 2, 3}) {
      for (const bool offload : {false, true}) {
        Case c(stage, dtype, offload);
        for (const int64_t i : {64, 191, 448, 452, 470, 512, 639}) {  // 457 to 511: padding
          EXPECT_EQ(value_at(c.shards.master(), i), whole.master()[static_cast<size_t>(i)]) << i;
          if (dtype == Dtype::bf16) {
            EXPECT_EQ(value_at(c.shards.copies(), i).bits,
                      whole.compute_copy()[static_cast<size_t>(i)].bits);
          }
        }
        if (stage < 3) {
          EXPECT_EQ(c.store.weight(c.store.params()[0]).elements(), 400);
        } else {
          EXPECT_EQ(c.shards.weights().elements(), own);
          EXPECT_EQ(c.shards.weights().dtype(), dtype);
        }
      }
    }
  }
}

TEST(ParamShards, KeepToTheTable) {
  const auto e = ParamStore(*std::make_unique<Device>(DeviceKind::cpu, 0, 1), infos(), Dtype::f32,
                            {.weights = false, .gradients = false})
                     .elements();
  const auto expect = [&](int64_t stage, bool offload, std::array<int64_t, 4> wanted) {
    Case c(stage, Dtype::bf16, offload);
    EXPECT_EQ(c.bytes(c.device, MemoryKind::weights), wanted[0]) << stage;
    EXPECT_EQ(c.bytes(c.device, MemoryKind::master_weights), wanted[1]) << stage;
    EXPECT_EQ(c.bytes(c.device, MemoryKind::gradients), wanted[2]) << stage;
    EXPECT_EQ(c.bytes(c.host, MemoryKind::master_weights), wanted[3]) << stage;
  };
  expect(0, false, {2 * e, 4 * e, 4 * e, 0});
  expect(1, false, {2 * e, 4 * own, 4 * e, 0});
  expect(2, false, {2 * e, 4 * own, 0, 0});
  expect(3, false, {2 * own, 4 * own, 0, 0});
  expect(1, true, {2 * e, 0, 4 * e, 4 * own});
  expect(3, true, {2 * own, 0, 0, 4 * own});
}

TEST(ParamShards, PublishBringsWeightsToTheDevice) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (const int64_t stage : {1, 3}) {
      Case c(stage, dtype, true);
      for (float& x : c.shards.master().values) x = 2.5f;
      c.shards.refresh_copies();
      Stream copies = Stream::worker(c.device, "copies");
      c.shards.publish(copies);
      copies.synchronize();
      const auto read = [&](const std::byte* from, int64_t i) {
        return dtype == Dtype::f32 ? reinterpret_cast<const float*>(from)[i]
                                   : static_cast<float>(reinterpret_cast<const BFloat16*>(from)[i]);
      };
      if (stage == 3) {
        for (int64_t i = 0; i < own; ++i) EXPECT_EQ(read(c.shards.weights().raw(), i), 2.5f);
        continue;
      }
      const std::byte* a = c.store.weight(c.store.params()[0]).raw();  // elements 0 to 399
      for (int64_t i = 0; i < 400; ++i) {
        EXPECT_EQ(read(a, i) == 2.5f, i >= 64 && i < 192) << i;
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
