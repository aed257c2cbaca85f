#pragma once
// Byte-pair merging: joins adjacent symbols of a piece, always the pair of lowest rank, leftmost
// first, until no pair is in the table (Sennrich et al. 2016, section 3.2).

#include <cstdint>
#include <span>
#include <vector>

namespace shoestring {

struct PairMerge {
  int32_t rank;
  int32_t id;  // of the joined token
};

// (left id, right id) -> merge; open addressing, since most lookups miss.
class PairTable {
 public:
  void reserve(size_t count);
  // A later entry for the same pair replaces the earlier one.
  void insert(int32_t left, int32_t right, PairMerge merge);
  size_t size() const { return size_; }

  // Null if the pair does not merge.
  const PairMerge* find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t at = slot_of(key);; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.key == key) {
        return &slot.merge;
      }
      if (slot.key == empty) {
        return nullptr;
      }
    }
  }

 private:
  static constexpr uint64_t empty = ~uint64_t{0};
  struct Slot {
    uint64_t key = empty;
    PairMerge merge{};
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const { return (key * 0x9E3779B97F4A7C15u) >> shift_; }
  void rehash(int bits);

  std::vector<Slot> slots_ = std::vector<Slot>(2);
  size_t mask_ = 1;
  int shift_ = 63;
  size_t size_ = 0;
};

// Merges symbols in place and returns how many are left. The time of `merge_short` grows with the
// square of the length, that of `merge_long` as n log n; results are equal.
size_t merge_short(const PairTable& table, std::span<int32_t> symbols);
size_t merge_long(const PairTable& table, std::span<int32_t> symbols);
// Chooses by length.
size_t merge_pairs(const PairTable& table, std::span<int32_t> symbols);

}  // namespace shoestring
