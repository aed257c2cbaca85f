#include "io/tokenizer/byte_pairs.h"

#include <algorithm>
#include <array>
#include <limits>
#include <queue>

#include "core/check.h"

namespace shoestring {

namespace {

constexpr size_t short_limit = 96;
constexpr int32_t no_rank = std::numeric_limits<int32_t>::max();

}  // namespace

void PairTable::reserve(size_t count) {
  int bits = 1;
  while ((size_t{1} << bits) < count * 2) {
    ++bits;
  }
  if ((size_t{1} << bits) > slots_.size()) {
    rehash(bits);
  }
}

void PairTable::rehash(int bits) {
  std::vector<Slot> old(size_t{1} << bits);
  old.swap(slots_);
  mask_ = slots_.size() - 1;
  shift_ = 64 - bits;
  size_ = 0;
  for (const Slot& slot : old) {
    if (slot.key != empty) {
      insert(static_cast<int32_t>(slot.key >> 32), static_cast<int32_t>(slot.key), slot.merge);
    }
  }
}

void PairTable::insert(int32_t left, int32_t right, PairMerge merge) {
  if ((size_ + 1) * 2 > slots_.size()) {
    rehash(65 - shift_);
  }
  const uint64_t key = key_of(left, right);
  size_t at = slot_of(key);
  while (slots_[at].key != empty && slots_[at].key != key) {
    at = (at + 1) & mask_;
  }
  size_ += slots_[at].key == empty;
  slots_[at] = {key, merge};
}

size_t merge_short(const PairTable& table, std::span<int32_t> symbols) {
  size_t count = symbols.size();
  check(count <= short_limit, "merge_short got a long piece");
  // ranks[i], ids[i]: what symbols[i] and symbols[i + 1] would become.
  std::array<int32_t, short_limit> ranks;
  std::array<int32_t, short_limit> ids;
  const auto look_up = [&](size_t i) {
    const PairMerge* merge = i + 1 < count ? table.find(symbols[i], symbols[i + 1]) : nullptr;
    ranks[i] = merge != nullptr ? merge->rank : no_rank;
    ids[i] = merge != nullptr ? merge->id : 0;
  };
  for (size_t i = 0; i < count; ++i) {
    look_up(i);
  }
  while (count > 1) {
    const auto best = static_cast<size_t>(
        std::min_element(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(count)) -
        ranks.begin());
    if (ranks[best] == no_rank) {
      break;
    }
    symbols[best] = ids[best];
    --count;
    for (size_t i = best + 1; i < count; ++i) {
      symbols[i] = symbols[i + 1];
      ranks[i] = ranks[i + 1];
      ids[i] = ids[i + 1];
    }
    look_up(best);
    if (best > 0) {
      look_up(best - 1);
    }
  }
  return count;
}

size_t merge_long(const PairTable& table, std::span<int32_t> symbols) {
  struct Link {
    size_t before, after;  // positions of the neighbours; `end` for none
  };
  struct Candidate {
    int32_t rank;
    int32_t id;
    size_t at;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const size_t end = symbols.size();
  constexpr int32_t gone = -1;
  std::vector<Link> links(end);
  std::vector<Candidate> found;
  for (size_t i = 0; i < end; ++i) {
    links[i] = {i == 0 ? end : i - 1, i + 1};
    if (i + 1 < end) {
      if (const PairMerge* merge = table.find(symbols[i], symbols[i + 1])) {
        found.push_back({merge->rank, merge->id, i});
      }
    }
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>(),
                                                                               std::move(found));
  const auto push = [&](size_t at) {
    const size_t after = links[at].after;
    if (after != end) {
      if (const PairMerge* merge = table.find(symbols[at], symbols[after])) {
        queue.push({merge->rank, merge->id, at});
      }
    }
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const size_t after = symbols[top.at] == gone ? end : links[top.at].after;
    if (after == end) {
      continue;
    }
    // The pair at this position may have changed since the entry was made.
    const PairMerge* now = table.find(symbols[top.at], symbols[after]);
    if (now == nullptr || now->rank != top.rank) {
      continue;
    }
    symbols[top.at] = now->id;
    symbols[after] = gone;
    links[top.at].after = links[after].after;
    if (links[after].after != end) {
      links[links[after].after].before = top.at;
    }
    push(top.at);
    if (links[top.at].before != end) {
      push(links[top.at].before);
    }
  }
  return static_cast<size_t>(std::remove(symbols.begin(), symbols.end(), gone) - symbols.begin());
}

size_t merge_pairs(const PairTable& table, std::span<int32_t> symbols) {
  return symbols.size() <= short_limit ? merge_short(table, symbols) : merge_long(table, symbols);
}

}  // namespace shoestring
