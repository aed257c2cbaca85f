#include "core/memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/check.h"
#include "core/device.h"
#include "core/random.h"

namespace shoestring {
namespace {

TEST(Ledger, CountsByKindWithPeaks) {
  Device device;
  {
    const BlockPtr a = device.allocate(100, MemoryKind::weights);
    const BlockPtr b = device.allocate(1000, MemoryKind::activations);
    EXPECT_EQ(device.ledger().current(MemoryKind::weights), 128);  // rounded up to 64
    EXPECT_EQ(device.ledger().current_total(), 128 + 1024);
    b->rename(MemoryKind::workspace);
    EXPECT_EQ(device.ledger().current(MemoryKind::activations), 0);
    EXPECT_EQ(device.ledger().current(MemoryKind::workspace), 1024);
  }
  EXPECT_EQ(device.ledger().current_total(), 0);
  EXPECT_EQ(device.ledger().peak(MemoryKind::activations), 1024);
  EXPECT_GE(device.ledger().peak_total(), 128 + 1024);
}

TEST(Pool, HandsOutDisjointAlignedMemory) {
  Pool pool;
  const RandomStream random(3, "pool");
  std::map<std::byte*, std::pair<size_t, unsigned char>> live;
  for (uint64_t i = 0; i < 4000; ++i) {
    if (random.below(4 * i, 2) == 0 || live.empty()) {
      const size_t bytes = 1 + random.below(4 * i + 1, 100000);
      auto* p = static_cast<std::byte*>(pool.allocate(bytes));
      ASSERT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
      const auto mark = static_cast<unsigned char>(i);
      std::memset(p, mark, bytes);
      live[p] = {bytes, mark};
    } else {
      auto it = live.begin();
      std::advance(it, static_cast<long>(random.below(4 * i + 2, live.size())));
      const auto [bytes, mark] = it->second;
      for (size_t j = 0; j < bytes; ++j) {
        ASSERT_EQ(static_cast<unsigned char>(it->first[j]), mark) << "overlap with another block";
      }
      pool.release(it->first, bytes);
      live.erase(it);
    }
  }
  for (auto& [p, item] : live) pool.release(p, item.first);
}

TEST(Pool, JoinsNeighbours) {
  Pool pool;
  std::vector<void*> parts;
  for (int i = 0; i < 64; ++i) parts.push_back(pool.allocate(size_t{1} << 20));
  const size_t reserved = pool.reserved_bytes();
  for (void* p : parts) pool.release(p, size_t{1} << 20);
  void* whole = pool.allocate(reserved);  // only possible without growth when all parts joined
  EXPECT_EQ(pool.reserved_bytes(), reserved);
  pool.release(whole, reserved);
}

TEST(Block, HollowBlocksTakeOverMemory) {
  Device device;
  const BlockPtr a = device.allocate(256, MemoryKind::activations);
  const BlockPtr b = device.allocate(256, MemoryKind::activations);
  std::byte* memory = b->data();
  a->drop();
  EXPECT_TRUE(a->hollow());
  EXPECT_EQ(device.ledger().current_total(), 256);
  a->adopt(*b);
  EXPECT_EQ(a->data(), memory);
  EXPECT_TRUE(b->hollow());
  EXPECT_EQ(device.ledger().current_total(), 256);
  const BlockPtr other = device.allocate(512, MemoryKind::activations);
  b->drop();
  EXPECT_THROW(b->adopt(*other), Error);
}

TEST(Arena, CountsEachBlockOnceUntilItsLastRelease) {
  Device device;
  Arena arena("test");
  const BlockPtr a = device.allocate(64, MemoryKind::activations);
  arena.hold(a);
  arena.hold(a);
  EXPECT_EQ(arena.bytes(), 64);
  arena.release(a);
  EXPECT_EQ(arena.bytes(), 64);
  arena.release(a);
  EXPECT_EQ(arena.bytes(), 0);
}

}  // namespace
}  // namespace shoestring
