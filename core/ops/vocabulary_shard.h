#pragma once
// Where a rank holds part of the vocabulary's rows (tensor parallelism of embedding and head): what
// the loss of a token needs from the other parts.

#include <cstdint>
#include <limits>
#include <span>

#include "core/device.h"

namespace shoestring {

// Of one token's logits, over the columns here.
struct VocabularyRow {
  double lse = -std::numeric_limits<double>::infinity();    // log sum_v e^z_v
  double label = -std::numeric_limits<double>::infinity();  // z of the label, if it is here
  double largest = -std::numeric_limits<double>::infinity();
  int64_t greedy = -1;  // the global column of the largest, the first of equals
};

class VocabularyShard {
 public:
  virtual ~VocabularyShard() = default;
  virtual int64_t vocabulary() const = 0;  // of all ranks together
  virtual int64_t first() const = 0;       // column that is this rank's first
  virtual int64_t widest() const = 0;      // columns of the rank that has most
  // Rows of the columns here become those of the whole vocabulary, on all ranks alike. Every rank
  // calls with the same tokens in the same order.
  virtual void merge(Device& device, std::span<VocabularyRow> rows) const = 0;
};

}  // namespace shoestring
