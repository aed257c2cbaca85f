#include "io/document_stream.h"

#include <algorithm>

#include "core/check.h"
#include "core/text.h"
#include "io/permutation.h"

namespace shoestring {

bool is_held_out(uint64_t text_hash, double fraction) {
  // Mixed once more, because the same hash may decide other things elsewhere.
  const uint64_t bits = combine_keys(text_hash, 0x68656c64);
  return static_cast<double>(bits >> 11) * 0x1p-53 < fraction;
}

DocumentStream::DocumentStream(std::shared_ptr<const TokenStore> store, Split split,
                               double held_out)
    : store_(std::move(store)) {
  const bool wanted = split == Split::held_out;
  int64_t tokens = 0;
  for (int64_t d = 0; d < store_->documents(); ++d) {
    const int64_t size = store_->document_start(d + 1) - store_->document_start(d);
    if (size <= 0 || is_held_out(store_->document_hash(d), held_out) != wanted) continue;
    ids_.push_back(d);
    starts_.push_back(tokens);
    tokens += size;
    text_bytes_ += store_->document_bytes(d);
  }
  starts_.push_back(tokens);
}

int64_t DocumentStream::document_at(int64_t token) const {
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), token);
  return static_cast<int64_t>(after - starts_.begin()) - 1;
}

int64_t DocumentStream::starts_within(int64_t first, int64_t last) const {
  // The end of the stream is no start; a caller never asks beyond the last token.
  return document_at(last) - document_at(first);
}

template <class F>
void DocumentStream::for_each_run(int64_t first, int64_t count, F&& visit) const {
  if (first < 0 || count < 0 || count > tokens() - first) {
    fail(cat(store_->path(), ": tokens ", first, " to ", first + count, " of ", tokens(),
             " of the stream"));
  }
  int64_t document = count > 0 ? document_at(first) : 0;
  while (count > 0) {
    // Neighbours in the store are read in one go.
    const int64_t at =
        store_->document_start(store_document(document)) + first - document_start(document);
    int64_t last = document;
    while (document_start(last + 1) < first + count &&
           store_document(last + 1) == store_document(last) + 1) {
      ++last;
    }
    const int64_t run = std::min(count, document_start(last + 1) - first);
    visit(at, run);
    first += run;
    count -= run;
    document = last + 1;
  }
}

void DocumentStream::read(int64_t first, int64_t count, int32_t* out) const {
  for_each_run(first, count, [&](int64_t at, int64_t run) {
    store_->read(at, run, out);
    out += run;
  });
}

void DocumentStream::prefetch(int64_t first, int64_t count) const {
  for_each_run(first, count, [&](int64_t at, int64_t run) { store_->prefetch(at, run); });
}

}  // namespace shoestring
