#pragma once
// Memory of one device: a ledger (who holds how many bytes, by kind), a pool with coalescing best
// fit over large segments, blocks with shared ownership, and arenas (named sets of blocks that are
// let go together). docs/decisions/0001-arenas-are-sets.md says why arenas do not bump a pointer.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace shoestring {

enum class MemoryKind : uint8_t {
  weights,         // compute weights (bf16 copies included)
  gradients,       // the flat f32 store
  master_weights,  // f32 masters when compute weights are narrower
  moments,         // optimiser state, weight average included
  activations,     // saved for the backward pass
  workspace,       // inside one op or one step
  communication,   // staging of collectives
  data,            // batches
  other
};
inline constexpr int num_memory_kinds = 9;
std::string_view name_of(MemoryKind kind);

// Thread-safe counters. Bytes are what blocks asked for, rounded up to 64.
class Ledger {
 public:
  void add(MemoryKind kind, int64_t bytes);  // negative when memory is let go
  int64_t current(MemoryKind kind) const;
  int64_t peak(MemoryKind kind) const;
  int64_t current_total() const;
  int64_t peak_total() const;  // the largest sum that ever was, not the sum of the peaks

 private:
  struct Counter {
    std::atomic<int64_t> current{0}, peak{0};
  };
  std::array<Counter, num_memory_kinds> kinds_;
  Counter total_;
};

// Hands out memory aligned to 64 bytes. Freed neighbours join; segments are kept for reuse.
// Under a sanitizer every request is its own malloc, so that overruns are found.
// Thread-safe. Contents are undefined on allocation.
class Pool {
 public:
  Pool();
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  void* allocate(size_t bytes);
  void release(void* pointer, size_t bytes);
  size_t reserved_bytes() const;  // mapped from the system, free or not

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Device;

// A piece of device memory with one kind in the ledger; let go when the last reference goes.
// A block may be hollow: its memory is dropped by a recompute region and filled again later, while
// every tensor that refers to it stays valid as an object.
class Block {
 public:
  Block(Device& device, size_t bytes, MemoryKind kind);
  // Memory that somebody else owns (a mapped file, a test's vector): not in the ledger.
  Block(Device& device, void* borrowed, size_t bytes, std::shared_ptr<void> owner);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  MemoryKind kind() const { return kind_; }
  Device& device() const { return *device_; }
  void rename(MemoryKind kind);  // moves the bytes to another kind in the ledger
  bool hollow() const { return data_ == nullptr && bytes_ > 0; }
  void drop();  // gives the memory back, keeps the object
  void adopt(
      Block& other);  // takes over the memory of a block of equal size; `other` is hollow then

 private:
  Device* device_;
  std::byte* data_ = nullptr;
  size_t bytes_;
  MemoryKind kind_;
  std::shared_ptr<void> owner_;
  bool borrowed_ = false;
};
using BlockPtr = std::shared_ptr<Block>;

// A set of blocks with counts. One (chunk, micro-batch) has two: what its input phase reads and
// what its weight phase reads; a block in both lives until the later phase has let it go. Ops
// release their own blocks as each phase walks past them, and clear() ends what is left.
class Arena {
 public:
  explicit Arena(std::string name) : name_(std::move(name)) {}
  void hold(const BlockPtr& block);
  void release(const BlockPtr& block);
  void clear() { blocks_.clear(); }
  int64_t bytes() const;  // each block once, hollow ones not
  bool holds(const Block& block) const { return blocks_.contains(&block); }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::unordered_map<const Block*, std::pair<BlockPtr, int>> blocks_;
};

}  // namespace shoestring
