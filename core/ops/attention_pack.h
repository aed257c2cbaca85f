#pragma once
// Rows of a tensor to packed blocks of words in cache and back (words: attention_products.h).
// Where words are f32, bf16 sources are widened here, once per block.

#include <cstdint>

#include "core/dtype.h"

namespace shoestring::attention {

// `rows` rows of `columns` elements in a tensor, `stride` elements apart.
template <class Element>
struct Rows {
  Element* data;
  int64_t stride;
  int64_t rows, columns;
};

// to[r, i] = f32 of from[r, i]; columns up to to_stride become 0.
void pack_f32(const Rows<const float>& from, float* to, int64_t to_stride);
void pack_f32(const Rows<const BFloat16>& from, float* to, int64_t to_stride);

// Pairs along the columns: to[r, w] = (from[r, 2w], from[r, 2w + 1]); words up to to_stride become
// 0, and so does the second half of an odd last one.
void pack_column_pairs(const Rows<const BFloat16>& from, float* to, int64_t to_stride);

// Pairs along the rows: to[w, i] = (from[2w, i], from[2w + 1, i]) or, with by_key, the rows
// first_of_pair(w) and second_of_pair(w). Rows from from.rows to `words` and columns up to
// to_stride become 0.
void pack_row_pairs(const Rows<const BFloat16>& from, bool by_key, int64_t words, float* to,
                    int64_t to_stride);

// to[i, r] = from[r, i] for from [rows, columns]; rows % 4 == 0, from_stride >= columns rounded up
// to a multiple of 4, and so many rows of to are written.
struct Transpose {
  const float* from;
  int64_t from_stride, rows, columns;
  float* to;
  int64_t to_stride;
};
void transpose(const Transpose& t);

// to[r, i] = from[r, i] * factor[r], rounded to nearest.
void unpack(const float* from, int64_t from_stride, const float* factor, const Rows<float>& to);
void unpack(const float* from, int64_t from_stride, const float* factor, const Rows<BFloat16>& to);

// to[r] = dot product of x[r, :] and y[r, :], rows of equal length.
void row_dots(const Rows<const float>& x, const Rows<const float>& y, float* to);
void row_dots(const Rows<const BFloat16>& x, const Rows<const BFloat16>& y, float* to);

}  // namespace shoestring::attention
