#include "core/layers/cached_attention.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/ops/kept_attention.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

// What is summed in: f32, or f64 for f64.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
std::vector<Sum<T>> widened(const Tensor& x) {
  std::vector<Sum<T>> result(static_cast<size_t>(x.elements()));
  std::transform(x.data<T>(), x.data<T>() + x.elements(), result.begin(),
                 [](T value) { return static_cast<Sum<T>>(value); });
  return result;
}

template <class T>
void narrow(const std::vector<Sum<T>>& from, const Tensor& to) {
  std::transform(from.begin(), from.end(), to.data<T>(), [](Sum<T> value) { return T(value); });
}

// Columns [column, column + columns) of the rows that a sequence sees.
template <class T>
MatrixRows<T> rows_of(const KeptSequence& s, const Tensor& kept, int64_t column, int64_t columns) {
  return {kept.data<T>() + s.begin * kept.columns() + column, s.count, columns, kept.columns()};
}

int64_t tokens_of(const std::vector<KeptSequence>& sequences) {
  int64_t tokens = 0;
  for (const KeptSequence& s : sequences) tokens += s.count;
  return tokens;
}

constexpr int64_t quad = 4;                  // heads that one task takes
constexpr int64_t worth_a_thread = 1 << 20;  // multiplications, of rows in cache

// Heads that share a key head go together, four at a time.
template <class T>
void attend_groups(Device& device, const AttentionShape& s,
                   const std::vector<KeptSequence>& sequences, const Tensor& q, const Tensor& out) {
  const std::vector<Sum<T>> queries = widened<T>(q);
  std::vector<Sum<T>> sums(static_cast<size_t>(out.elements()));
  const int64_t group = s.q_heads / s.kv_heads, quads = (group + quad - 1) / quad;
  const int64_t work = tokens_of(sequences) * s.q_heads * (s.head_dim + s.v_head_dim);
  parallel_for_dynamic(
      device, s.batch * s.kv_heads * quads, threads_for(device, work, worth_a_thread),
      [&](int64_t task) {
        const int64_t row = task / (s.kv_heads * quads), kv_head = task / quads % s.kv_heads;
        const int64_t first = task % quads * quad, count = std::min(quad, group - first);
        const int64_t head = row * s.q_heads + kv_head * group + first;
        const KeptSequence& seen = sequences[static_cast<size_t>(row)];
        attend_kept({rows_of<T>(seen, seen.k, kv_head * s.head_dim, s.head_dim),
                     rows_of<T>(seen, seen.v, kv_head * s.v_head_dim, s.v_head_dim), s.scale},
                    Vectors<const Sum<T>>{queries.data() + head * s.head_dim, count, s.head_dim},
                    Vectors<Sum<T>>{sums.data() + head * s.v_head_dim, count, s.v_head_dim});
      });
  narrow<T>(sums, out);
}

// One decode step of latent attention in the latent's space. Letters as in the header; B sequences,
// n heads, d = d_c, c + r = head_dim, w = v_head_dim.
template <class T>
class AbsorbedStep {
 public:
  AbsorbedStep(Device& device, const LatentAttention& a, const std::vector<KeptSequence>& sequences)
      : device_(device),
        a_(a),
        sequences_(sequences),
        batch_(a.shape.batch),
        n_(a.shape.q_heads),
        d_(a.up.columns()),
        q_(widened<T>(a.q.tensor())),
        absorbed_(static_cast<size_t>(batch_ * n_ * (d_ + a.rope))),
        latents_(static_cast<size_t>(batch_ * n_ * d_)),
        out_(static_cast<size_t>(batch_ * n_ * a.shape.v_head_dim)) {}

  void run(const Tensor& out) {
    const int64_t weights = a_.up.elements() / 2 * batch_;
    const int64_t up_threads = threads_for(device_, weights, worth_a_thread);
    parallel_for_dynamic(device_, n_, up_threads, [&](int64_t head) { absorb(head); });
    const int64_t quads = (n_ + quad - 1) / quad;
    const int64_t work = tokens_of(sequences_) * n_ * (2 * d_ + a_.rope);
    parallel_for_dynamic(device_, batch_ * quads, threads_for(device_, work, worth_a_thread),
                         [&](int64_t task) { attend(task / quads, task % quads * quad); });
    parallel_for_dynamic(device_, n_, up_threads, [&](int64_t head) { make_output(head); });
    narrow<T>(out_, out);
  }

 private:
  using S = Sum<T>;
  int64_t width() const { return d_ + a_.rope; }
  // Rows of the up-projection that belong to a head: its c dims of the key, then its value's w.
  MatrixRows<T> up_rows(int64_t head, bool value) const {
    const int64_t w = a_.shape.v_head_dim;
    const int64_t first = head * (a_.nope + w) + (value ? a_.nope : 0);
    return {a_.up.data<T>() + first * d_, value ? w : a_.nope, d_, d_};
  }
  // [W^UK^T q^C ; q^R] of one head of all sequences.
  void absorb(int64_t head) {
    const int64_t hd = a_.shape.head_dim;
    const Vectors<const S> q{q_.data() + head * hd, batch_, n_ * hd};
    const Vectors<S> to{absorbed_.data() + head * width(), batch_, n_ * width()};
    sum_rows(up_rows(head, false), q, to);
    for (int64_t b = 0; b < batch_; ++b) {
      std::copy_n(q.data + b * q.stride + a_.nope, a_.rope, to.data + b * to.stride + d_);
    }
  }
  void attend(int64_t row, int64_t head) {
    const KeptSequence& seen = sequences_[static_cast<size_t>(row)];
    const int64_t count = std::min(quad, n_ - head), at = row * n_ + head;
    attend_kept(
        {rows_of<T>(seen, seen.k, 0, width()), rows_of<T>(seen, seen.k, 0, d_), a_.shape.scale},
        Vectors<const S>{absorbed_.data() + at * width(), count, width()},
        Vectors<S>{latents_.data() + at * d_, count, d_});
  }
  void make_output(int64_t head) {
    const int64_t w = a_.shape.v_head_dim;
    dot_rows(up_rows(head, true), Vectors<const S>{latents_.data() + head * d_, batch_, n_ * d_},
             Vectors<S>{out_.data() + head * w, batch_, n_ * w});
  }

  Device& device_;
  const LatentAttention& a_;
  const std::vector<KeptSequence>& sequences_;
  int64_t batch_, n_, d_;
  std::vector<S> q_, absorbed_, latents_, out_;  // [B, n, ...]
};

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
  latent_layer_ = -1;
}

void CachedAttention::decode(std::vector<int64_t> sequences) {
  prefilling_ = false;
  active_ = std::move(sequences);
}

int64_t CachedAttention::bytes() const {
  size_t sum = 0;
  for (const Rows& rows : cache_) {
    if (rows.k) sum += rows.k.bytes();
    if (rows.v) sum += rows.v.bytes();
  }
  return static_cast<int64_t>(sum);
}

size_t CachedAttention::index_of(int layer, int64_t sequence) const {
  check(layer >= 0 && layer < layers_, "the cache has no such layer");
  return static_cast<size_t>(layer) * lengths_.size() + static_cast<size_t>(sequence);
}

void CachedAttention::check_pass(const Tape& tape, const AttentionShape& shape) const {
  check(!tape.recording(), "the cache of generation cannot be trained through");
  check(prefilling_ ? shape.batch == 1
                    : shape.length == 1 && shape.batch == static_cast<int64_t>(active_.size()),
        "a prefill must hold one sequence, a decode step one token of each active one");
}

void CachedAttention::append(const AttentionShape& shape, Tensor Rows::*which,
                             const std::vector<Tensor>& parts) {
  int64_t columns = 0;
  for (const Tensor& part : parts) columns += part.columns();
  const int64_t count = prefilling_ ? shape.length : 1;
  for (size_t i = 0; i < active_.size(); ++i) {
    const int64_t at = lengths_[static_cast<size_t>(active_[i])];
    if (at + count > capacity_) {
      fail(
          cat("the cache holds ", capacity_, " tokens a sequence but ", at + count, " are needed"));
    }
    Tensor& to = cache_[index_of(shape.layer, active_[i])].*which;
    if (!to) to = Tensor(*device_, {capacity_, columns}, parts[0].dtype(), MemoryKind::other);
    for (int64_t row = 0; row < count; ++row) {
      std::byte* target = to.rows(at + row, at + row + 1).raw();
      for (const Tensor& part : parts) {
        const int64_t from = static_cast<int64_t>(i) + row;
        const Tensor source = part.rows(from, from + 1);
        std::memcpy(target, source.raw(), source.bytes());
        target += source.bytes();
      }
    }
  }
}

void CachedAttention::end_layer(const AttentionShape& shape) {
  if (shape.layer + 1 != layers_) return;
  for (int64_t sequence : active_) {
    lengths_[static_cast<size_t>(sequence)] += prefilling_ ? shape.length : 1;
  }
}

std::vector<KeptSequence> CachedAttention::kept(const AttentionShape& shape) const {
  std::vector<KeptSequence> list;
  for (int64_t sequence : active_) {
    const Rows& rows = cache_[index_of(shape.layer, sequence)];
    const int64_t n = lengths_[static_cast<size_t>(sequence)] + 1;
    const int64_t from = shape.window > 0 ? std::max<int64_t>(0, n - shape.window) : 0;
    list.push_back({.k = rows.k, .v = rows.v, .begin = from, .count = n - from});
  }
  return list;
}

Value CachedAttention::run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k,
                           const Value& v, const Tensor& first_key) {
  check_pass(tape, shape);
  if (!prefilling_ || latent_layer_ != shape.layer) {
    append(shape, &Rows::k, {k.tensor()});
    append(shape, &Rows::v, {v.tensor()});
  }
  if (prefilling_) {
    end_layer(shape);
    return LocalAttention().run(tape, shape, q, k, v, first_key);
  }
  Tensor out(*device_, {q.tensor().rows(), shape.q_heads * shape.v_head_dim}, q.tensor().dtype());
  const Tape::Watch watch(tape, "kept_attention", Phase::forward);
  dispatch_float(out.dtype(), [&]<class T>() {
    attend_groups<T>(*device_, shape, kept(shape), q.tensor(), out);
  });
  end_layer(shape);
  return Value(out);
}

Value CachedAttention::run_latent(Tape& tape, const LatentAttention& a) {
  check_pass(tape, a.shape);
  append(a.shape, &Rows::k, {a.latent.tensor(), a.key.tensor()});
  if (prefilling_) {  // a prompt's keys and values are made once: the plain form is cheaper
    latent_layer_ = a.shape.layer;
    return {};
  }
  const Tensor& q = a.q.tensor();
  Tensor out(*device_, {q.rows(), a.shape.q_heads * a.shape.v_head_dim}, q.dtype());
  const std::vector<KeptSequence> sequences = kept(a.shape);
  const Tape::Watch watch(tape, "absorbed_attention", Phase::forward);
  dispatch_float(out.dtype(), [&]<class T>() { AbsorbedStep<T>(*device_, a, sequences).run(out); });
  end_layer(a.shape);
  return Value(out);
}

}  // namespace shoestring
