#pragma once
// How the rows of a micro-batch are shared out among the ranks of the context axis: zigzag. A row
// of S tokens is cut into 2c chunks of equal length; rank r of c holds chunks r and 2c-1-r, in this
// order, so that every rank has the same share of the causal area of scores.
//
//   c = 2:   | chunk 0 | chunk 1 | chunk 2 | chunk 3 |
//            |  rank 0 |  rank 1 |  rank 1 |  rank 0 |
//
// Everything that looks at a token's neighbours (labels, the shifted tokens and labels of
// multi-token prediction) is made of whole rows before they are cut: borders need no communication.

#include <cstdint>

#include "core/batch.h"

namespace shoestring {

// The columns of a row that one rank holds.
struct ContextShare {
  int rank = 0, ranks = 1;
  int64_t chunk = 0;  // S / 2c

  int64_t tokens() const { return 2 * chunk; }
  int64_t row_length() const { return 2 * ranks * chunk; }  // S
  // Of the rank's i-th token; increases with i.
  int64_t column(int64_t i) const { return i < chunk ? low() + i : high() + i - chunk; }
  // How many of the rank's columns lie before `column`: the place of a column that is here.
  int64_t count_before(int64_t column) const {
    return count_in(low(), column) + count_in(high(), column);
  }
  bool holds(int64_t column) const { return count_before(column) < count_before(column + 1); }

 private:
  int64_t low() const { return rank * chunk; }
  int64_t high() const { return (2 * ranks - 1 - rank) * chunk; }
  int64_t count_in(int64_t begin, int64_t column) const {
    const int64_t n = column - begin;
    return n < 0 ? 0 : n < chunk ? n : chunk;
  }
};

// `row_length` must be a positive multiple of 2 * ranks; the error names the nearest ones.
ContextShare context_share(int64_t row_length, int rank, int ranks);

// What `rank` holds of a micro-batch: rows of share.tokens() tokens. Positions are those of the
// whole row, for RoPE; first_key and document_start are columns of the whole row, which the
// attention cores of context_ring.h and context_all_to_all.h expect. `modules`: of multi-token
// prediction.
MicroBatch cut_context(const MicroBatch& whole, const ContextShare& share, int64_t modules = 0);

// Rows made longer, up to the next multiple of `multiple`: tokens 0 in a document of their own and
// without labels, as in a row that its text does not fill.
MicroBatch pad_rows(const MicroBatch& rows, int64_t multiple);

}  // namespace shoestring
