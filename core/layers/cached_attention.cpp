#include "core/layers/cached_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

// One query row of one head over n kept rows: softmax(scale * q k^T) v with the maximum taken
// first.
template <class T>
void attend_row(const T* q, const T* k, const T* v, int64_t n, const AttentionShape& s,
                int64_t kv_stride, int64_t v_stride, T* out) {
  using Arithmetic = std::conditional_t<std::is_same_v<T, double>, double, float>;
  std::vector<Arithmetic> p(static_cast<size_t>(n));
  Arithmetic top = -std::numeric_limits<Arithmetic>::infinity();
  for (int64_t t = 0; t < n; ++t) {
    Arithmetic dot = 0;
    for (int64_t i = 0; i < s.head_dim; ++i) {
      dot += static_cast<Arithmetic>(q[i]) * static_cast<Arithmetic>(k[t * kv_stride + i]);
    }
    p[static_cast<size_t>(t)] = dot * static_cast<Arithmetic>(s.scale);
    top = std::max(top, p[static_cast<size_t>(t)]);
  }
  Arithmetic sum = 0;
  for (Arithmetic& x : p) sum += x = std::exp(x - top);
  std::vector<Arithmetic> o(static_cast<size_t>(s.v_head_dim), 0);
  for (int64_t t = 0; t < n; ++t) {
    const Arithmetic weight = p[static_cast<size_t>(t)] / sum;
    for (int64_t i = 0; i < s.v_head_dim; ++i) {
      o[static_cast<size_t>(i)] += weight * static_cast<Arithmetic>(v[t * v_stride + i]);
    }
  }
  for (int64_t i = 0; i < s.v_head_dim; ++i) out[i] = T(o[static_cast<size_t>(i)]);
}

}  // namespace

CachedAttention::CachedAttention(Device& device, int64_t layers, int64_t sequences,
                                 int64_t capacity)
    : device_(&device),
      layers_(layers),
      capacity_(capacity),
      cache_(static_cast<size_t>(layers * sequences)),
      lengths_(static_cast<size_t>(sequences), 0) {}

void CachedAttention::prefill(int64_t sequence) {
  prefilling_ = true;
  active_ = {sequence};
  lengths_.at(static_cast<size_t>(sequence)) = 0;
}

void CachedAttention::decode(std::vector<int64_t> sequences) {
  prefilling_ = false;
  active_ = std::move(sequences);
}

int64_t CachedAttention::bytes() const {
  size_t sum = 0;
  for (const Rows& rows : cache_) {
    if (rows.k) sum += rows.k.bytes() + rows.v.bytes();
  }
  return static_cast<int64_t>(sum);
}

CachedAttention::Rows& CachedAttention::rows_of(int layer, int64_t sequence, const Rows& fresh) {
  check(layer >= 0 && layer < layers_, "the cache has no such layer");
  const auto sequences = static_cast<int64_t>(lengths_.size());
  Rows& rows = cache_[static_cast<size_t>(layer * sequences + sequence)];
  if (!rows.k) {
    rows.k = Tensor(*device_, {capacity_, fresh.k.columns()}, fresh.k.dtype(), MemoryKind::other);
    rows.v = Tensor(*device_, {capacity_, fresh.v.columns()}, fresh.v.dtype(), MemoryKind::other);
  }
  return rows;
}

void CachedAttention::append(Rows& to, const Rows& fresh, int64_t row, int64_t count, int64_t at) {
  if (at + count > capacity_) {
    fail(cat("the cache holds ", capacity_, " tokens a sequence but ", at + count, " are needed"));
  }
  auto copy = [&](const Tensor& from, const Tensor& cache) {
    const Tensor source = from.rows(row, row + count), target = cache.rows(at, at + count);
    std::memcpy(target.raw(), source.raw(), source.bytes());
  };
  copy(fresh.k, to.k);
  copy(fresh.v, to.v);
}

Value CachedAttention::run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k,
                           const Value& v, const Tensor& first_key) {
  check(!tape.recording(), "the cache of generation cannot be trained through");
  const bool last_layer = shape.layer + 1 == layers_;
  const Rows fresh{k.tensor(), v.tensor()};
  if (prefilling_) {
    append(rows_of(shape.layer, active_[0], fresh), fresh, 0, shape.length, 0);
    if (last_layer) lengths_[static_cast<size_t>(active_[0])] = shape.length;
    return LocalAttention().run(tape, shape, q, k, v, first_key);
  }
  check(shape.length == 1 && shape.batch == static_cast<int64_t>(active_.size()),
        "a decode step must hold one token of each active sequence");
  for (size_t i = 0; i < active_.size(); ++i) {
    const int64_t at = lengths_[static_cast<size_t>(active_[i])];
    append(rows_of(shape.layer, active_[i], fresh), fresh, static_cast<int64_t>(i), 1, at);
  }
  const Value out = attend(shape, q.tensor());
  if (last_layer) {
    for (int64_t sequence : active_) ++lengths_[static_cast<size_t>(sequence)];
  }
  return out;
}

Value CachedAttention::attend(const AttentionShape& s, const Tensor& q) {
  Tensor out(*device_, {q.rows(), s.q_heads * s.v_head_dim}, q.dtype());
  const int64_t group = s.q_heads / s.kv_heads;
  int64_t keys = 0;
  for (int64_t sequence : active_) keys += lengths_[static_cast<size_t>(sequence)] + 1;
  constexpr int64_t worth_a_thread = 1 << 18;  // multiplications one by one, and exponentials
  const int64_t threads =
      threads_for(*device_, keys * s.q_heads * (s.head_dim + s.v_head_dim), worth_a_thread);
  dispatch_float(q.dtype(), [&]<class T>() {
    parallel_for_dynamic(*device_, s.batch * s.q_heads, threads, [&](int64_t task) {
      const int64_t row = task / s.q_heads, head = task % s.q_heads;
      const int64_t sequence = active_[static_cast<size_t>(row)];
      const Rows& rows =
          cache_[static_cast<size_t>(s.layer) * lengths_.size() + static_cast<size_t>(sequence)];
      const int64_t n = lengths_[static_cast<size_t>(sequence)] + 1;
      const int64_t from = s.window > 0 ? std::max<int64_t>(0, n - s.window) : 0;
      const int64_t kv_stride = s.kv_heads * s.head_dim, v_stride = s.kv_heads * s.v_head_dim;
      const int64_t kv_head = head / group;
      attend_row<T>(q.data<T>() + row * s.q_heads * s.head_dim + head * s.head_dim,
                    rows.k.data<T>() + from * kv_stride + kv_head * s.head_dim,
                    rows.v.data<T>() + from * v_stride + kv_head * s.v_head_dim, n - from, s,
                    kv_stride, v_stride,
                    out.data<T>() + row * s.q_heads * s.v_head_dim + head * s.v_head_dim);
    });
  });
  return Value(out);
}

}  // namespace shoestring
