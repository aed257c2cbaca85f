#include "io/tokenizer/pair_merger.h"

#include <algorithm>

namespace shoestring {

PairMerger::PairMerger(std::vector<std::vector<int32_t>> words, std::vector<int64_t> counts)
    : words_(std::move(words)), counts_(std::move(counts)) {
  for (uint32_t word = 0; word < words_.size(); ++word) {
    const auto& symbols = words_[word];
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      change({symbols[i], symbols[i + 1]}, 1, word);
    }
  }
  push_places();
}

void PairMerger::change(IdPair pair, int64_t by, uint32_t word) {
  pair_counts_[pair] += by * counts_[word];
  if (by > 0) {
    std::vector<uint32_t>& places = places_[pair];
    if (places.empty() || places.back() != word) {
      places.push_back(word);
    }
  }
}

void PairMerger::push_places() {
  for (auto& [pair, words] : places_) {
    const int64_t count = pair_counts_[pair];
    if (count > 0) {
      heap_.push_back({count, pair, std::move(words)});
      std::push_heap(heap_.begin(), heap_.end(), Lower());
    }
  }
  places_.clear();
}

std::optional<IdPair> PairMerger::best(int64_t min_count) {
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), Lower());
    Entry& last = heap_.back();
    const int64_t now = pair_counts_[last.pair];
    if (last.count != now) {
      last.count = now;
      std::push_heap(heap_.begin(), heap_.end(), Lower());
      continue;
    }
    if (now < std::max<int64_t>(min_count, 1)) {
      return std::nullopt;
    }
    top_ = std::move(last);
    heap_.pop_back();
    return top_.pair;
  }
  return std::nullopt;
}

void PairMerger::merge(IdPair pair, int32_t joined) {
  for (const uint32_t word : top_.words) {
    merge_in_word(word, pair, joined);
  }
  push_places();
}

// Left to right; the counts of the neighbouring pairs follow each single replacement.
void PairMerger::merge_in_word(uint32_t word, IdPair pair, int32_t joined) {
  std::vector<int32_t>& symbols = words_[word];
  size_t kept = 0;  // symbols[0, kept) are done
  for (size_t i = 0; i < symbols.size(); ++i) {
    const bool found =
        symbols[i] == pair.left && i + 1 < symbols.size() && symbols[i + 1] == pair.right;
    if (!found) {
      symbols[kept++] = symbols[i];
      continue;
    }
    if (kept > 0) {
      change({symbols[kept - 1], pair.left}, -1, word);
      change({symbols[kept - 1], joined}, 1, word);
    }
    if (i + 2 < symbols.size()) {
      change({pair.right, symbols[i + 2]}, -1, word);
      change({joined, symbols[i + 2]}, 1, word);
    }
    symbols[kept++] = joined;
    ++i;
  }
  symbols.resize(kept);
}

}  // namespace shoestring
