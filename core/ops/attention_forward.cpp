#include <cmath>
#include <numbers>
#include <vector>

#include "core/instruction_set.h"
#include "core/ops/attention_blocks.h"
#include "core/ops/attention_panels.h"
#include "core/parallel_for.h"

namespace shoestring::attention {
namespace {

// The forward pass of some query blocks of one row of the batch and one group of heads.
template <class Element, class W>
class ForwardPass {
 public:
  ForwardPass(Device& device, const Attention::Attributes& a, const ForwardArrays<Element>& x,
              const Part& part)
      : a_(a),
        x_(x),
        part_(part),
        group_(a.q_heads / a.kv_heads),
        keys_(x.other.count(a)),
        mask_(mask_of_row(x, part.batch_row, a.length, a.window)),
        k_width_(W::stored(a.head_dim)),
        v_width_(round_up(a.v_head_dim, word_multiple)),
        key_begin_(mask_.low(part.begin * block_rows) / block_keys),
        key_end_(divide_up(mask_.high(std::min(part.end * block_rows, a.length) - 1), block_keys)),
        scratch_(device, scratch_floats()) {
    k_panels_ = scratch_.take((key_end_ - key_begin_) * k_panel());
    v_panels_ = scratch_.take((key_end_ - key_begin_) * v_panel());
    scores_ = scratch_.take(block_rows * block_keys);
    temporary_ = scratch_.take(block_keys * k_width_);
    pairs_ = W::pairs ? scratch_.take(block_rows * W::key_words) : nullptr;
    for (int64_t h = 0; h < group_; ++h) {
      heads_.push_back({.q = scratch_.take(block_rows * k_width_),
                        .output = scratch_.take(block_rows * v_width_),
                        .maximum = scratch_.take(block_rows),
                        .sums = scratch_.take(block_rows * sum_lanes)});
    }
  }

  void run() {
    pack_keys();
    for (int64_t block = part_.begin; block < part_.end; ++block) {
      const int64_t row = block * block_rows;
      const int64_t rows = std::min(block_rows, a_.length - row);
      const int64_t low = mask_.low(row), high = mask_.high(row + rows - 1);
      if (low >= high) continue;  // only of other keys: they change nothing
      for (int64_t h = 0; h < group_; ++h) start(h, row, rows);
      for (int64_t key = low / block_keys; key * block_keys < high; ++key) {
        const BlockLimits limits(mask_, row, rows, key * block_keys, W::pairs);
        for (int64_t h = 0; h < group_; ++h) add_block(heads_[h], limits, rows, key);
      }
      for (int64_t h = 0; h < group_; ++h) finish(h, row, rows);
    }
  }

 private:
  struct Head {
    float *q, *output, *maximum, *sums;
  };

  int64_t k_panel() const { return k_width_ * block_keys; }
  int64_t v_panel() const { return W::key_words * v_width_; }
  int64_t scratch_floats() const {
    const int64_t head = block_rows * (k_width_ + v_width_ + 1 + sum_lanes);
    const int64_t shared = block_rows * (block_keys + (W::pairs ? W::key_words : 0));
    return (key_end_ - key_begin_ + 1) * (k_panel() + v_panel()) + shared + group_ * head;
  }

  Slice queries(int64_t row, int64_t rows, int64_t h, int64_t columns) const {
    return {part_.batch_row * a_.length + row, rows, a_.q_heads, q_head(h), columns};
  }
  Slice keys(int64_t row, int64_t rows, int64_t columns) const {
    return {part_.batch_row * keys_ + row, rows, a_.kv_heads, part_.kv_head, columns};
  }
  int64_t q_head(int64_t h) const { return part_.kv_head * group_ + h; }

  void pack_keys() {
    for (int64_t block = key_begin_; block < key_end_; ++block) {
      const int64_t row = block * block_keys, rows = std::min(block_keys, keys_ - row);
      const int64_t i = block - key_begin_;
      W::columns(keys(row, rows, a_.head_dim).of(x_.k), temporary_, k_panels_ + i * k_panel());
      W::along_rows(keys(row, rows, a_.v_head_dim).of(x_.v), true, v_panels_ + i * v_panel());
    }
  }

  void start(int64_t h, int64_t row, int64_t rows) {
    Head& head = heads_[h];
    W::rows(queries(row, rows, h, a_.head_dim).of(x_.q), head.q);
    std::fill_n(head.output, rows * v_width_, 0.0f);
    std::fill_n(head.maximum, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(head.sums, rows * sum_lanes, 0.0f);
  }

  void add_block(Head& head, const BlockLimits& limits, int64_t rows, int64_t key) {
    W::multiply({.a = head.q,
                 .a_row = k_width_,
                 .a_step = 1,
                 .b = k_panels_ + (key - key_begin_) * k_panel(),
                 .b_step = block_keys,
                 .c = scores_,
                 .c_row = block_keys,
                 .rows = rows,
                 .columns = block_keys,
                 .steps = W::steps(a_.head_dim),
                 .accumulate = false,
                 .limit = limits.limit(Limit::columns),
                 .begin = limits.low,
                 .end = limits.high});
    softmax_block({.visible = {.rows = rows, .low = limits.low, .high = limits.high},
                   .factor = static_cast<float>(a_.scale * std::numbers::log2e),
                   .scores = scores_,
                   .pairs = pairs_,
                   .output = head.output,
                   .output_columns = v_width_,
                   .maximum = head.maximum,
                   .sums = head.sums});
    W::multiply({.a = W::pairs ? pairs_ : scores_,
                 .a_row = W::key_words,
                 .a_step = 1,
                 .b = v_panels_ + (key - key_begin_) * v_panel(),
                 .b_step = v_width_,
                 .c = head.output,
                 .c_row = v_width_,
                 .rows = rows,
                 .columns = v_width_,
                 .steps = W::key_words,
                 .limit = limits.limit(Limit::steps),
                 .begin = limits.key_low,
                 .end = limits.key_high});
  }

  void finish(int64_t h, int64_t row, int64_t rows) {
    Head& head = heads_[h];
    const int64_t number = part_.batch_row * a_.q_heads + q_head(h);
    float* log_sum_exp = x_.log_sum_exp + number * a_.length + row;
    float inverse[block_rows], found[block_rows];
    for (int64_t r = 0; r < rows; ++r) {
      float sum = 0;
      for (int64_t i = 0; i < sum_lanes; ++i) sum += head.sums[r * sum_lanes + i];
      inverse[r] = 1 / sum;
      found[r] = (head.maximum[r] + std::log2(sum)) * std::numbers::ln2_v<float>;
    }
    const Slice to = queries(row, rows, h, a_.v_head_dim);
    if (x_.merged != nullptr) {
      merge(head.output, inverse, found, to.of(x_.merged), log_sum_exp);
      return;
    }
    std::copy_n(found, rows, log_sum_exp);
    unpack(head.output, v_width_, inverse, to.of(x_.o));
  }

  // One softmax over what was seen before and this block: o' = o + w (o_b - o) with the block's
  // share w of the sum of exponentials.
  void merge(const float* output, const float* inverse, const float* found, const Rows<float>& to,
             float* log_sum_exp) const {
    for (int64_t r = 0; r < to.rows; ++r) {
      if (inverse[r] == std::numeric_limits<float>::infinity()) continue;  // nothing was seen
      const float before = log_sum_exp[r], apart = std::exp(-std::abs(found[r] - before));
      const float share = (found[r] > before ? 1 : apart) / (1 + apart);
      log_sum_exp[r] = std::max(found[r], before) + std::log1p(apart);
      float* o = to.data + r * to.stride;
      const float* x = output + r * v_width_;
      for (int64_t i = 0; i < to.columns; ++i) o[i] += share * (x[i] * inverse[r] - o[i]);
    }
  }

  const Attention::Attributes& a_;
  const ForwardArrays<Element>& x_;
  Part part_;
  int64_t group_, keys_;
  RowMask mask_;
  int64_t k_width_, v_width_;
  int64_t key_begin_, key_end_;
  Scratch scratch_;
  float *k_panels_, *v_panels_, *scores_, *temporary_, *pairs_;
  std::vector<Head> heads_;
};

template <class Element, class W>
void run_forward(Device& device, const Attention::Attributes& a, const ForwardArrays<Element>& x) {
  constexpr int64_t worth_a_thread = 1 << 22;  // multiplications, with their exponentials
  const bool other = x.other.end_key != nullptr;
  const int64_t own = a.window > 0 ? std::min(a.window, a.length) : (a.length + 1) / 2;
  const int64_t keys = other ? x.other.keys : own;
  const int64_t work = a.batch * a.q_heads * a.length * keys * (a.head_dim + a.v_head_dim);
  const int64_t threads = threads_for(device, work, worth_a_thread);
  Parts parts(a, static_cast<int>(threads), divide_up(a.length, block_rows), true);
  parts.grows = !other;
  parallel_for_dynamic(device, parts.count(), threads, [&](int64_t i) {
    const Part part = parts.part(i);
    if (part.begin < part.end) ForwardPass<Element, W>(device, a, x, part).run();
  });
}

}  // namespace

template <>
void forward_blocks(Device& device, const Attention::Attributes& a, const ForwardArrays<float>& x) {
  run_forward<float, Words<float, false>>(device, a, x);
}
template <>
void forward_blocks(Device& device, const Attention::Attributes& a,
                    const ForwardArrays<BFloat16>& x) {
  if (has_bf16_products()) {
    run_forward<BFloat16, Words<BFloat16, true>>(device, a, x);
  } else {
    run_forward<BFloat16, Words<BFloat16, false>>(device, a, x);
  }
}

}  // namespace shoestring::attention
