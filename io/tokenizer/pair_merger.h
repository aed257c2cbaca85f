#pragma once
// The training loop of byte-pair encoding over counted words: pair counts are kept up to date word
// by word, a heap yields the most frequent pair.

#include <cstdint>
#include <optional>
#include <queue>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace shoestring {

struct IdPair {
  int32_t left, right;
  bool operator==(const IdPair&) const = default;
  auto operator<=>(const IdPair&) const = default;
  template <class H>
  friend H AbslHashValue(H hash, const IdPair& pair) {
    return H::combine(std::move(hash), pair.left, pair.right);
  }
};

class PairMerger {
 public:
  // words[i]: ids of its symbols; counts[i]: how often it occurs.
  PairMerger(std::vector<std::vector<int32_t>> words, std::vector<int64_t> counts);

  // The pair to merge next; none if no pair is left that occurs `min_count` times (at least once).
  std::optional<IdPair> best(int64_t min_count);
  // Replaces the pair that `best` returned last by `joined` wherever its entry says it occurs.
  void merge(IdPair pair, int32_t joined);

 private:
  // The reference trainer's heap entries hold the words in which a pair appeared at one time;
  // entries are not joined when a pair appears again later. Which words a merge reaches depends on
  // it, so it is kept.
  struct Entry {
    int64_t count;
    IdPair pair;
    std::vector<uint32_t> words;
  };
  struct Lower {
    bool operator()(const Entry& a, const Entry& b) const {
      return a.count != b.count ? a.count < b.count : a.pair > b.pair;
    }
  };
  using Places = absl::flat_hash_map<IdPair, std::vector<uint32_t>>;

  void change(IdPair pair, int64_t by, uint32_t word);
  void merge_in_word(uint32_t word, IdPair pair, int32_t joined);
  void push_places();

  std::vector<std::vector<int32_t>> words_;
  std::vector<int64_t> counts_;
  absl::flat_hash_map<IdPair, int64_t> pair_counts_;
  Places places_;  // where pairs appeared since the last push
  std::vector<Entry> heap_;
  Entry top_{};
};

}  // namespace shoestring
