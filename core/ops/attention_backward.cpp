#include <cmath>
#include <numbers>
#include <optional>
#include <vector>

#include "core/instruction_set.h"
#include "core/ops/attention_blocks.h"
#include "core/ops/attention_panels.h"
#include "core/parallel_for.h"

namespace shoestring::attention {
namespace {

// What one pass makes: everything, or, where there are too few heads for the threads, one half of
// the gradients each in two passes that both recompute the weights. The bits are the same.
struct Wanted {
  bool queries, keys;
};

// Gradients of some query blocks (all keys they see) and/or some key blocks (all queries that see
// them) of one row of the batch and one group of heads.
template <class Element, class W>
class BackwardPass {
 public:
  BackwardPass(Device& device, const Attention::Attributes& a, const BackwardArrays<Element>& x,
               const Part& part, Wanted wanted)
      : a_(a),
        x_(x),
        part_(part),
        wanted_(wanted),
        group_(a.q_heads / a.kv_heads),
        all_keys_(x.other.count(a)),
        mask_(mask_of_row(x, part.batch_row, a.length, a.window)),
        k_steps_(W::stored(a.head_dim)),
        v_steps_(W::stored(a.v_head_dim)),
        k_width_(round_up(a.head_dim, word_multiple)),
        v_width_(round_up(a.v_head_dim, word_multiple)) {
    const int64_t key_blocks = divide_up(all_keys_, block_keys);
    if (wanted.queries && wanted.keys) {
      queries_end_ = divide_up(a.length, block_rows);
      keys_end_ = key_blocks;
    } else if (wanted.queries) {
      queries_ = part.begin;
      queries_end_ = part.end;
      keys_ = mask_.low(queries_ * block_rows) / block_keys;
      const int64_t last = std::min(queries_end_ * block_rows, a.length) - 1;
      keys_end_ = divide_up(mask_.high(last), block_keys);
    } else {
      keys_ = part.begin;
      keys_end_ = part.end;
      queries_ = mask_.first_query(keys_ * block_keys, a.length) / block_rows;
      queries_end_ = divide_up(a.length, block_rows);
    }
    take_memory(device);
  }

  void run() {
    for (int64_t key = keys_; key < keys_end_; ++key) pack_keys(key);
    for (int64_t block = queries_; block < queries_end_; ++block) {
      const int64_t row = block * block_rows;
      const int64_t rows = std::min(block_rows, a_.length - row);
      const int64_t from = std::max(keys_, mask_.low(row) / block_keys);
      const int64_t to = std::min(keys_end_, divide_up(mask_.high(row + rows - 1), block_keys));
      if (from >= keys_end_) break;  // nor does any later query see these keys
      if (from >= to) continue;      // only of other keys: no gradient
      for (int64_t h = 0; h < group_; ++h) start(h, row, rows);
      for (int64_t key = from; key < to; ++key) {
        const BlockLimits limits(mask_, row, rows, key * block_keys, W::pairs);
        for (int64_t h = 0; h < group_; ++h)
          add_block(heads_[h], limits, rows, panels_[key - keys_]);
      }
      if (wanted_.queries) {
        for (int64_t h = 0; h < group_; ++h) store_query(h, row, rows);
      }
    }
    if (wanted_.keys) {
      for (int64_t key = keys_; key < keys_end_; ++key) store_keys(key);
    }
  }

 private:
  struct Head {
    // q and dy as words along the columns [block_rows, steps] and along the rows [row words, width]
    float *q, *dy, *q_along, *dy_along;
    float *dq, *log_sum, *delta;
  };
  struct Panel {
    float *k_columns, *v_columns;  // [steps, block_keys]
    float* k_along;                // [key words, k_width]
    float *dk, *dv;                // [block_keys, width], f32 sums
  };

  void take_memory(Device& device) {
    const int64_t score = block_rows * block_keys;
    const int64_t head = block_rows * (k_steps_ + v_steps_ + 2 * k_width_ + 2 * v_width_ + 2);
    const int64_t panel = block_keys * (k_steps_ + v_steps_ + 2 * k_width_ + v_width_);
    const int64_t widest = std::max(k_steps_, v_steps_);
    Scratch& s = scratch_.emplace(
        device, 5 * score + group_ * head + (keys_end_ - keys_) * panel + block_keys * widest);
    scores_ = s.take(score);
    d_weights_ = s.take(score);
    temporary_ = s.take(block_keys * widest);
    if (W::pairs) {
      p_pairs_ = s.take(score / 2);
      ds_pairs_ = s.take(score / 2);
      ds_key_pairs_ = s.take(score / 2);
    }
    for (int64_t h = 0; h < group_; ++h) {
      Head& x = heads_.emplace_back();
      x.q = s.take(block_rows * k_steps_);
      x.dy = s.take(block_rows * v_steps_);
      // Words of one element are the same both ways.
      x.q_along = W::pairs ? s.take(W::row_words * k_width_) : x.q;
      x.dy_along = W::pairs ? s.take(W::row_words * v_width_) : x.dy;
      x.dq = s.take(block_rows * k_width_);
      x.log_sum = s.take(block_rows);
      x.delta = s.take(block_rows);
    }
    for (int64_t key = keys_; key < keys_end_; ++key) {
      Panel& x = panels_.emplace_back();
      x.k_columns = s.take(k_steps_ * block_keys);
      x.v_columns = s.take(v_steps_ * block_keys);
      x.k_along = s.take(W::key_words * k_width_);
      if (!wanted_.keys) continue;
      x.dk = s.take(block_keys * k_width_);
      x.dv = s.take(block_keys * v_width_);
    }
  }

  Slice queries(int64_t row, int64_t rows, int64_t h, int64_t columns) const {
    return {part_.batch_row * a_.length + row, rows, a_.q_heads, q_head(h), columns};
  }
  Slice keys(int64_t key, int64_t columns) const {
    const int64_t row = key * block_keys, rows = std::min(block_keys, all_keys_ - row);
    return {part_.batch_row * all_keys_ + row, rows, a_.kv_heads, part_.kv_head, columns};
  }
  int64_t q_head(int64_t h) const { return part_.kv_head * group_ + h; }

  void pack_keys(int64_t key) {
    Panel& panel = panels_[key - keys_];
    const auto k = keys(key, a_.head_dim).of(x_.k);
    W::columns(k, temporary_, panel.k_columns);
    W::columns(keys(key, a_.v_head_dim).of(x_.v), temporary_, panel.v_columns);
    W::along_rows(k, true, panel.k_along);
    if (!wanted_.keys) return;
    std::fill_n(panel.dk, block_keys * k_width_, 0.0f);
    std::fill_n(panel.dv, block_keys * v_width_, 0.0f);
  }

  void start(int64_t h, int64_t row, int64_t rows) {
    Head& head = heads_[h];
    const auto q = queries(row, rows, h, a_.head_dim).of(x_.q);
    const auto dy = queries(row, rows, h, a_.v_head_dim).of(x_.dy);
    row_dots(queries(row, rows, h, a_.v_head_dim).of(x_.o), dy, head.delta);
    W::rows(q, head.q);
    W::rows(dy, head.dy);
    if (W::pairs && wanted_.keys) {
      W::along_rows(q, false, head.q_along);
      W::along_rows(dy, false, head.dy_along);
    }
    const int64_t number = part_.batch_row * a_.q_heads + q_head(h);
    const float* log_sum_exp = x_.log_sum_exp + number * a_.length + row;
    for (int64_t r = 0; r < rows; ++r) {
      head.log_sum[r] = log_sum_exp[r] * std::numbers::log2e_v<float>;
    }
    std::fill_n(head.dq, rows * k_width_, 0.0f);
  }

  // scores = a b^T where it is visible, a: rows of one head, b: transposed keys or values.
  void multiply_rows(const float* a, int64_t a_row, int64_t steps, const float* b, float* scores,
                     int64_t rows, const BlockLimits& limits) {
    W::multiply({.a = a,
                 .a_row = a_row,
                 .a_step = 1,
                 .b = b,
                 .b_step = block_keys,
                 .c = scores,
                 .c_row = block_keys,
                 .rows = rows,
                 .columns = block_keys,
                 .steps = steps,
                 .accumulate = false,
                 .limit = limits.limit(Limit::columns),
                 .begin = limits.low,
                 .end = limits.high});
  }

  // sum += a^T b over the block's rows.
  void add_over_rows(const float* a, const float* b, int64_t width, float* sum, int64_t rows,
                     const BlockLimits& limits) {
    W::multiply({.a = a,
                 .a_row = 1,
                 .a_step = block_keys,
                 .b = b,
                 .b_step = width,
                 .c = sum,
                 .c_row = width,
                 .rows = block_keys,
                 .columns = width,
                 .steps = W::steps(rows),
                 .limit = limits.limit(Limit::steps),
                 .begin = limits.row_low,
                 .end = limits.row_high});
  }

  void add_block(const Head& head, const BlockLimits& limits, int64_t rows, const Panel& panel) {
    multiply_rows(head.q, k_steps_, W::steps(a_.head_dim), panel.k_columns, scores_, rows, limits);
    multiply_rows(head.dy, v_steps_, W::steps(a_.v_head_dim), panel.v_columns, d_weights_, rows,
                  limits);
    gradient_block({.visible = {.rows = rows, .low = limits.low, .high = limits.high},
                    .factor = static_cast<float>(a_.scale * std::numbers::log2e),
                    .log_sum = head.log_sum,
                    .delta = head.delta,
                    .scores = scores_,
                    .d_weights = d_weights_,
                    .p_row_pairs = p_pairs_,
                    .ds_row_pairs = ds_pairs_,
                    .ds_key_pairs = ds_key_pairs_});
    if (wanted_.keys) {
      add_over_rows(W::pairs ? p_pairs_ : scores_, head.dy_along, v_width_, panel.dv, rows, limits);
      add_over_rows(W::pairs ? ds_pairs_ : d_weights_, head.q_along, k_width_, panel.dk, rows,
                    limits);
    }
    if (!wanted_.queries) return;
    W::multiply({.a = W::pairs ? ds_key_pairs_ : d_weights_,
                 .a_row = W::key_words,
                 .a_step = 1,
                 .b = panel.k_along,
                 .b_step = k_width_,
                 .c = head.dq,
                 .c_row = k_width_,
                 .rows = rows,
                 .columns = k_width_,
                 .steps = W::key_words,
                 .limit = limits.limit(Limit::steps),
                 .begin = limits.key_low,
                 .end = limits.key_high});
  }

  void store_query(int64_t h, int64_t row, int64_t rows) {
    float factor[block_rows];
    std::fill_n(factor, rows, static_cast<float>(a_.scale));
    store(heads_[h].dq, k_width_, factor, queries(row, rows, h, a_.head_dim), {x_.dq, x_.dq_sum});
  }

  void store_keys(int64_t key) {
    const Panel& panel = panels_[key - keys_];
    float factor[block_keys];
    std::fill_n(factor, block_keys, static_cast<float>(a_.scale));
    store(panel.dk, k_width_, factor, keys(key, a_.head_dim), {x_.dk, x_.dk_sum});
    std::fill_n(factor, block_keys, 1.0f);
    store(panel.dv, v_width_, factor, keys(key, a_.v_head_dim), {x_.dv, x_.dv_sum});
  }

  struct Target {
    Element* values;  // overwritten, unless
    float* sum;       // there is a sum to add to
  };
  static void store(const float* from, int64_t stride, const float* factor, const Slice& at,
                    const Target& to) {
    if (to.sum != nullptr) {
      add_rows(from, stride, factor, at.of(to.sum));
    } else {
      unpack(from, stride, factor, at.of(to.values));
    }
  }

  const Attention::Attributes& a_;
  const BackwardArrays<Element>& x_;
  Part part_;
  Wanted wanted_;
  int64_t group_, all_keys_;
  RowMask mask_;
  int64_t k_steps_, v_steps_, k_width_, v_width_;                    // words of a row, see Words
  int64_t queries_ = 0, queries_end_ = 0, keys_ = 0, keys_end_ = 0;  // blocks
  std::optional<Scratch> scratch_;
  float *scores_ = nullptr, *d_weights_ = nullptr, *temporary_ = nullptr;
  float *p_pairs_ = nullptr, *ds_pairs_ = nullptr, *ds_key_pairs_ = nullptr;
  std::vector<Head> heads_;
  std::vector<Panel> panels_;
};

template <class Element, class W>
void run_backward(Device& device, const Attention::Attributes& a,
                  const BackwardArrays<Element>& x) {
  const int64_t groups = a.batch * a.kv_heads, threads = device.threads();
  const auto run = [&](Parts parts, Wanted wanted) {
    parts.grows = x.other.end_key == nullptr;
    parallel_for_dynamic(device, parts.count(), [&](int64_t i) {
      const Part part = parts.part(i);
      if (part.begin < part.end) BackwardPass<Element, W>(device, a, x, part, wanted).run();
    });
  };
  // Two passes cost seven products a block instead of five, but share the work evenly.
  const bool one_pass = divide_up(groups, threads) * threads * 5 <= groups * 7;
  if (one_pass) {
    run({a, 1, divide_up(a.length, block_rows), true}, {.queries = true, .keys = true});
  } else {
    const int64_t query_blocks = divide_up(a.length, block_rows);
    const int64_t key_blocks = divide_up(x.other.count(a), block_keys);
    run({a, device.threads(), query_blocks, true}, {.queries = true, .keys = false});
    run({a, device.threads(), key_blocks, false}, {.queries = false, .keys = true});
  }
}

}  // namespace

template <>
void backward_blocks(Device& device, const Attention::Attributes& a,
                     const BackwardArrays<float>& x) {
  run_backward<float, Words<float, false>>(device, a, x);
}
template <>
void backward_blocks(Device& device, const Attention::Attributes& a,
                     const BackwardArrays<BFloat16>& x) {
  if (has_bf16_products()) {
    run_backward<BFloat16, Words<BFloat16, true>>(device, a, x);
  } else {
    run_backward<BFloat16, Words<BFloat16, false>>(device, a, x);
  }
}

}  // namespace shoestring::attention
