#pragma once
// What forward and backward passes over blocks of scores share: which columns a row sees, packed
// panels of words, and scratch memory. Included by attention_blocks' two source files only.

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/check.h"
#include "core/ops/attention.h"
#include "core/ops/attention_pack.h"
#include "core/ops/attention_products.h"
#include "core/ops/attention_rows.h"
#include "core/tensor.h"

namespace shoestring::attention {

constexpr int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }
constexpr int64_t round_up(int64_t n, int64_t by) { return divide_up(n, by) * by; }

// One row of the batch: which columns its tokens see. Both ends do not decrease with t.
struct RowMask {
  const int32_t* first_key;
  int64_t window;
  const int32_t* end_key = nullptr;  // null: up to the token itself
  int64_t low(int64_t t) const {
    return window > 0 ? std::max<int64_t>(first_key[t], t - window + 1) : first_key[t];
  }
  int64_t high(int64_t t) const { return end_key != nullptr ? end_key[t] : t + 1; }
  // The first of `tokens` tokens that may see a column at or after `key`.
  int64_t first_query(int64_t key, int64_t tokens) const;
};

// Of row `batch_row` of a batch whose queries have `length` tokens a row.
template <class Arrays>
RowMask mask_of_row(const Arrays& x, int64_t batch_row, int64_t length, int64_t window) {
  const int64_t at = batch_row * length;
  return {x.first_key + at, window, x.other.end_key != nullptr ? x.other.end_key + at : nullptr};
}

// The part of one block of scores that is visible, seen from its rows and from its keys.
// "Words" are steps of sums: over keys for a row, over rows for a key.
struct BlockLimits {
  bool whole;
  int32_t low[block_rows], high[block_rows];          // keys of a row
  int32_t key_low[block_rows], key_high[block_rows];  // words of keys of a row
  int32_t row_low[block_keys], row_high[block_keys];  // words of rows of a key
  BlockLimits(const RowMask& mask, int64_t row, int64_t rows, int64_t key, bool pairs);
  Limit limit(Limit kind) const { return whole ? Limit::none : kind; }
};

// Some tokens of one head in a tensor [tokens, heads * columns].
struct Slice {
  int64_t token, tokens, heads, head, columns;
  template <class T>
  Rows<T> of(T* data) const {
    return {data + (token * heads + head) * columns, heads * columns, tokens, columns};
  }
};

// Rounded-up allocations out of one block of workspace memory.
class Scratch {
 public:
  Scratch(Device& device, int64_t floats)
      : memory_(device, {floats}, Dtype::f32, MemoryKind::workspace), left_(floats) {}
  float* take(int64_t floats) {
    floats = round_up(floats, word_multiple);
    check(floats <= left_, "[attention] the scratch memory is too small for its parts");
    left_ -= floats;
    return memory_.data<float>() + memory_.elements() - left_ - floats;
  }

 private:
  Tensor memory_;
  int64_t left_;
};

// How elements become words, and the product of such words.
template <class Element, bool paired>
struct Words {
  static constexpr bool pairs = paired;
  static constexpr Multiply multiply = paired ? multiply_bf16 : multiply_f32;
  static constexpr int64_t key_words = paired ? block_keys / 2 : block_keys;
  static constexpr int64_t row_words = paired ? block_rows / 2 : block_rows;
  // Words of `columns` elements of one row, as steps of a sum and as stored.
  static constexpr int64_t steps(int64_t columns) {
    return paired ? divide_up(columns, 2) : columns;
  }
  static constexpr int64_t stored(int64_t columns) {
    return round_up(steps(columns), word_multiple);
  }
  // [rows, stored(columns)]: summed along the columns.
  static void rows(const Rows<const Element>& from, float* to) {
    if constexpr (paired) {
      pack_column_pairs(from, to, stored(from.columns));
    } else {
      pack_f32(from, to, stored(from.columns));
    }
  }
  // [stored(columns), block_keys]: the same, transposed. temporary: [block_keys, stored(columns)].
  static void columns(const Rows<const Element>& from, float* temporary, float* to) {
    const int64_t width = stored(from.columns);
    rows(from, temporary);
    std::fill(temporary + from.rows * width, temporary + block_keys * width, 0.0f);
    transpose({.from = temporary,
               .from_stride = width,
               .rows = block_keys,
               .columns = width,
               .to = to,
               .to_stride = block_keys});
  }
  // [words, columns rounded up]: summed along the rows, block_keys of them (by_key) or block_rows.
  static void along_rows(const Rows<const Element>& from, bool by_key, float* to) {
    const int64_t width = round_up(from.columns, word_multiple);
    if constexpr (paired) {
      pack_row_pairs(from, by_key, by_key ? key_words : row_words, to, width);
    } else {
      pack_f32(from, to, width);
      const int64_t all = by_key ? block_keys : block_rows;
      std::fill(to + from.rows * width, to + all * width, 0.0f);
    }
  }
};

// to[r, i] += from[r, i] * factor[r].
void add_rows(const float* from, int64_t from_stride, const float* factor, const Rows<float>& to);

// Work is shared out per row of the batch, key head and part of its query (or key) blocks.
struct Part {
  int64_t batch_row, kv_head;
  int64_t begin, end;  // blocks
};
// At least about four parts a thread; of equal work where work grows linearly with the block, and
// of equal numbers of blocks otherwise.
struct Parts {
  int64_t batch, kv_heads, blocks, per_head;
  bool late_is_long;  // query blocks: late ones see more; key blocks: early ones are seen more
  bool grows = true;
  Parts(const Attention::Attributes& a, int threads, int64_t blocks, bool late_is_long);
  int64_t count() const { return batch * kv_heads * per_head; }
  Part part(int64_t index) const;  // longest first
};

}  // namespace shoestring::attention
