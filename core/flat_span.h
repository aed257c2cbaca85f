#pragma once
// Values of the flat element numbering (core/param.h), all or in pieces.

#include <span>

#include "core/check.h"
#include "core/param.h"

namespace shoestring {

// Part of a flat store: values[0] is element `first` of the numbering; or, with `ranges`, these
// ranges of it (ascending), one behind the other. Shards' buffers and the whole store (first = 0)
// look the same to the optimiser.
template <class T>
struct FlatSpan {
  std::span<T> values = {};
  int64_t first = 0;
  std::span<const FlatRange> ranges = {};

  bool empty() const { return values.empty(); }
  // Pointer to the element `range.begin`; the whole range must lie inside, and in one of `ranges`.
  T* at(FlatRange range) const {
    int64_t before = 0;
    for (const FlatRange& r : ranges) {
      if (range.begin >= r.begin && range.end <= r.end && range.begin < r.end) {
        return values.data() + before + (range.begin - r.begin);
      }
      before += r.elements();
    }
    check(ranges.empty() || range.elements() == 0,
          "shards that do not cover the elements asked for");
    if (!ranges.empty()) return values.data();
    check(range.begin >= first && range.end <= first + static_cast<int64_t>(values.size()),
          "a span that does not cover the elements asked for");
    return values.data() + (range.begin - first);
  }
};

template <class T>
FlatSpan<const T> read_only(const FlatSpan<T>& span) {
  return {span.values, span.first, span.ranges};
}

}  // namespace shoestring
