#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>

#include "core/check.h"
#include "core/device.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr size_t alignment = 64;
constexpr size_t segment_bytes = size_t{64} << 20;
constexpr bool plain_malloc =
#ifdef SHOESTRING_SANITIZED
    true;
#else
    false;
#endif

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void raise(std::atomic<int64_t>& peak, int64_t value) {
  int64_t seen = peak.load();
  while (value > seen && !peak.compare_exchange_weak(seen, value)) {
  }
}

}  // namespace

std::string_view name_of(MemoryKind kind) {
  constexpr std::string_view names[num_memory_kinds] = {
      "weights",   "gradients",     "master_weights", "moments", "activations",
      "workspace", "communication", "data",           "other"};
  return names[static_cast<int>(kind)];
}

void Ledger::add(MemoryKind kind, int64_t bytes) {
  Counter& counter = kinds_[static_cast<size_t>(kind)];
  raise(counter.peak, counter.current.fetch_add(bytes) + bytes);
  raise(total_.peak, total_.current.fetch_add(bytes) + bytes);
}

int64_t Ledger::current(MemoryKind kind) const { return kinds_[static_cast<size_t>(kind)].current; }
int64_t Ledger::peak(MemoryKind kind) const { return kinds_[static_cast<size_t>(kind)].peak; }
int64_t Ledger::current_total() const { return total_.current; }
int64_t Ledger::peak_total() const { return total_.peak; }

struct Pool::State {
  std::mutex mutex;
  std::map<std::byte*, size_t> free_by_address;
  std::set<std::pair<size_t, std::byte*>> free_by_size;
  std::map<std::byte*, size_t> segments;

  void insert(std::byte* at, size_t bytes) {
    free_by_address[at] = bytes;
    free_by_size.insert({bytes, at});
  }
  void erase(std::map<std::byte*, size_t>::iterator it) {
    free_by_size.erase({it->second, it->first});
    free_by_address.erase(it);
  }
  void grow(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      fail(cat("out of memory: the system refused ", bytes, " bytes; use a smaller ",
               "train.micro_batch, shorter sequences or recompute"));
    }
    madvise(memory, bytes, MADV_HUGEPAGE);  // fewer page faults; only a hint
    segments[static_cast<std::byte*>(memory)] = bytes;
    insert(static_cast<std::byte*>(memory), bytes);
  }
};

Pool::Pool() : state_(std::make_unique<State>()) {}

Pool::~Pool() {
  for (auto [address, bytes] : state_->segments) munmap(address, bytes);
}

void* Pool::allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  bytes = round_up(bytes, alignment);
  if constexpr (plain_malloc) {
    void* memory = std::aligned_alloc(alignment, bytes);
    if (memory == nullptr) fail(cat("out of memory: ", bytes, " bytes refused"));
    return memory;
  }
  std::lock_guard lock(state_->mutex);
  auto best = state_->free_by_size.lower_bound({bytes, nullptr});
  if (best == state_->free_by_size.end()) {
    state_->grow(bytes <= segment_bytes / 4 ? segment_bytes : round_up(bytes, size_t{2} << 20));
    best = state_->free_by_size.lower_bound({bytes, nullptr});
  }
  auto [size, address] = *best;
  state_->erase(state_->free_by_address.find(address));
  if (size > bytes) state_->insert(address + bytes, size - bytes);
  return address;
}

void Pool::release(void* pointer, size_t bytes) {
  if (pointer == nullptr) return;
  bytes = round_up(bytes, alignment);
  if constexpr (plain_malloc) {
    std::free(pointer);
    return;
  }
  std::lock_guard lock(state_->mutex);
  auto* address = static_cast<std::byte*>(pointer);
  auto next = state_->free_by_address.lower_bound(address);
  if (next != state_->free_by_address.end() && address + bytes == next->first) {
    bytes += next->second;
    auto gone = next++;
    state_->erase(gone);
  }
  if (next != state_->free_by_address.begin()) {
    auto previous = std::prev(next);
    if (previous->first + previous->second == address) {
      address = previous->first;
      bytes += previous->second;
      state_->erase(previous);
    }
  }
  state_->insert(address, bytes);
}

size_t Pool::reserved_bytes() const {
  std::lock_guard lock(state_->mutex);
  size_t sum = 0;
  for (auto [address, bytes] : state_->segments) sum += bytes;
  return sum;
}

Block::Block(Device& device, size_t bytes, MemoryKind kind)
    : device_(&device), bytes_(round_up(bytes, alignment)), kind_(kind) {
  data_ = static_cast<std::byte*>(device.pool().allocate(bytes_));
  device.ledger().add(kind_, static_cast<int64_t>(bytes_));
}

Block::Block(Device& device, void* borrowed, size_t bytes, std::shared_ptr<void> owner)
    : device_(&device),
      data_(static_cast<std::byte*>(borrowed)),
      bytes_(bytes),
      kind_(MemoryKind::other),
      owner_(std::move(owner)),
      borrowed_(true) {}

Block::~Block() { drop(); }

void Block::rename(MemoryKind kind) {
  if (data_ != nullptr && !borrowed_) {
    device_->ledger().add(kind_, -static_cast<int64_t>(bytes_));
    device_->ledger().add(kind, static_cast<int64_t>(bytes_));
  }
  kind_ = kind;
}

void Block::drop() {
  if (data_ == nullptr || borrowed_) return;
  device_->pool().release(data_, bytes_);
  device_->ledger().add(kind_, -static_cast<int64_t>(bytes_));
  data_ = nullptr;
}

void Block::adopt(Block& other) {
  if (other.bytes_ != bytes_ || data_ != nullptr || other.borrowed_) {
    fail(cat("a hollow block of ", bytes_, " bytes cannot take over one of ", other.bytes_,
             " bytes"));
  }
  data_ = std::exchange(other.data_, nullptr);
  device_->ledger().add(other.kind_, -static_cast<int64_t>(bytes_));
  device_->ledger().add(kind_, static_cast<int64_t>(bytes_));
}

void Arena::hold(const BlockPtr& block) {
  if (block == nullptr) return;
  auto [it, added] = blocks_.try_emplace(block.get(), block, 0);
  ++it->second.second;
}

void Arena::release(const BlockPtr& block) {
  auto it = blocks_.find(block.get());
  if (it != blocks_.end() && --it->second.second == 0) blocks_.erase(it);
}

int64_t Arena::bytes() const {
  int64_t sum = 0;
  for (const auto& [block, held] : blocks_) {
    if (!block->hollow()) sum += static_cast<int64_t>(block->bytes());
  }
  return sum;
}

}  // namespace shoestring
