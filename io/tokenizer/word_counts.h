#pragma once
// How often each pre-tokenizer piece occurs in a corpus: all that a BPE trainer needs to know of
// it.

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "io/tokenizer/scanners.h"

namespace shoestring {

using WordCounts = std::vector<std::pair<std::string, int64_t>>;  // ascending words

// Splits documents by one step on `threads` threads. `next` fills in a document, false at the end;
// `read` hears of every batch: documents and bytes so far.
WordCounts count_words(const SplitStep& step, const std::function<bool(std::string&)>& next,
                       int threads, const std::function<void(int64_t, int64_t)>& read);

}  // namespace shoestring
