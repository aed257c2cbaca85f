#include "core/ops/attention_panels.h"

#include <cmath>

namespace shoestring::attention {

int64_t RowMask::first_query(int64_t key, int64_t tokens) const {
  if (end_key == nullptr) return std::min(key, tokens);
  return std::upper_bound(end_key, end_key + tokens, key) - end_key;
}

void add_rows(const float* from, int64_t from_stride, const float* factor, const Rows<float>& to) {
  for (int64_t r = 0; r < to.rows; ++r) {
    const float* x = from + r * from_stride;
    float* y = to.data + r * to.stride;
    for (int64_t i = 0; i < to.columns; ++i) y[i] += x[i] * factor[r];
  }
}

BlockLimits::BlockLimits(const RowMask& mask, int64_t row, int64_t rows, int64_t key, bool pairs) {
  const auto inside = [&](int64_t column) {
    return static_cast<int32_t>(std::clamp<int64_t>(column - key, 0, block_keys));
  };
  whole = inside(mask.low(row + rows - 1)) == 0 && inside(mask.high(row)) == block_keys;
  for (int64_t r = 0; r < rows; ++r) {
    low[r] = inside(mask.low(row + r));
    high[r] = inside(mask.high(row + r));
    // Pairs of keys lie in groups of 32 columns, 16 words.
    key_low[r] = pairs ? low[r] / 32 * 16 : low[r];
    key_high[r] = pairs ? (high[r] + 31) / 32 * 16 : high[r];
  }
  if (whole) return;
  int32_t first = 0, last = 0;  // rows that see the key are first <= r < last
  for (int32_t n = 0; n < block_keys; ++n) {
    while (first < rows && high[first] <= n) ++first;
    while (last < rows && low[last] <= n) ++last;
    row_low[n] = pairs ? first / 2 : first;
    row_high[n] = pairs ? (last + 1) / 2 : last;
  }
}

Parts::Parts(const Attention::Attributes& a, int threads, int64_t all_blocks, bool late)
    : batch(a.batch), kv_heads(a.kv_heads), blocks(all_blocks), late_is_long(late) {
  const int64_t wanted = threads == 1 ? 1 : divide_up(4 * threads, batch * kv_heads);
  per_head = std::clamp<int64_t>(wanted, 1, blocks);
}

Part Parts::part(int64_t index) const {
  const int64_t heads = batch * kv_heads, head = index % heads;
  const int64_t number = index / heads;
  // Border i of a triangle (or rectangle) of equal areas, counted from its thin end.
  const auto border = [&](int64_t i) {
    const double part = static_cast<double>(i) / static_cast<double>(per_head);
    const double share = grows ? std::sqrt(part) : part;
    return i == per_head ? blocks : static_cast<int64_t>(share * static_cast<double>(blocks));
  };
  const int64_t begin = border(per_head - number - 1), end = border(per_head - number);
  return {.batch_row = head / kv_heads,
          .kv_head = head % kv_heads,
          .begin = late_is_long ? begin : blocks - end,
          .end = late_is_long ? end : blocks - begin};
}

}  // namespace shoestring::attention
