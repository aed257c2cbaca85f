#include "parallel/gradient_reduction.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/check.h"
#include "core/transfer.h"
#include "parallel/comm/collectives.h"
#include "parallel/comm/fold.h"

namespace shoestring {
namespace {

std::span<float> floats_of(Buffer x) {
  return {reinterpret_cast<float*>(x.data), static_cast<size_t>(x.count)};
}

int64_t bytes_to_others(Buffer own, const Communicator& to) {
  return static_cast<int64_t>(own.bytes()) * (to.size() - 1);
}

}  // namespace

GradientReduction::GradientReduction(const ReductionPlan& plan) : plan_(plan) {
  const std::vector<ShardLayout::Bucket>& buckets = plan.layout.buckets();
  sum_begin_.resize(buckets.size());
  sum_end_.resize(buckets.size());
  begun_.resize(buckets.size());
  int64_t owned = 0, largest = 0;
  for (size_t b = buckets.size(); b-- > 0;) {  // ascending elements
    const int64_t piece = plan.layout.piece(buckets[b], plan.shard.rank()).elements();
    sum_begin_[b] = owned;
    owned += piece;
    sum_end_[b] = owned;
    largest = std::max(largest, piece);
  }
  if (!plan.sums) return;
  Device& device = plan.stream.device();
  Device& memory = plan.host == nullptr ? device : *plan.host;
  check(!plan.memory || plan.memory.elements() == owned, "memory for other sums");
  sums_ =
      plan.memory ? plan.memory : Tensor::zeros(memory, {owned}, Dtype::f32, MemoryKind::gradients);
  const auto staging = [&](Device& where, int64_t pieces) {
    return Tensor(where, {pieces, largest}, Dtype::f32, MemoryKind::communication);
  };
  if (plan.exact && plan.shard.size() > 1) {
    inside_ = staging(device, plan.sources * plan.shard.size());
  }
  if (plan.exact && replicas() > 1) all_ = staging(device, plan.sources * ranks());
  if (plan.host != nullptr) landing_ = staging(memory, plan.exact ? plan.sources * ranks() : 1);
}

int GradientReduction::rank() const {
  const int replica = plan_.replicate == nullptr ? 0 : plan_.replicate->rank();
  return replica * plan_.shard.size() + plan_.shard.rank();
}

Buffer GradientReduction::own_piece(size_t bucket, Buffer whole) const {
  const ShardLayout::Bucket& b = plan_.layout.buckets()[bucket];
  const FlatRange piece = plan_.layout.piece(b, plan_.shard.rank());
  return whole.part(piece.begin - b.range.begin, piece.elements());
}

std::span<float> GradientReduction::sums() const {
  return sums_ ? sums_.span<float>() : std::span<float>();
}

std::span<float> GradientReduction::sum_of(size_t bucket) const {
  return sums_.span<float>().subspan(static_cast<size_t>(sum_begin_[bucket]),
                                     static_cast<size_t>(sum_end_[bucket] - sum_begin_[bucket]));
}

void GradientReduction::clear() {
  begun_.assign(begun_.size(), false);
  plan_.stream.run([this] {
    if (sums_ && sums_.bytes() > 0) std::memset(sums_.raw(), 0, sums_.bytes());
  });
}

void GradientReduction::reduce(size_t bucket, Buffer whole) {
  const std::vector<int64_t>& counts = plan_.layout.buckets()[bucket].counts;
  const Buffer own = own_piece(bucket, whole);
  if (plan_.shard.size() > 1) {
    bytes_sent_ += static_cast<int64_t>(whole.bytes() - own.bytes());
    plan_.shard.reduce_scatter(whole, counts, own, Reduce::sum, plan_.stream);
  }
  if (replicas() == 1) return;
  Call call;
  call.op = Call::Op::all_reduce;
  call.in = own;
  bytes_sent_ += shoestring::bytes_sent(call, plan_.replicate->rank(), replicas());
  plan_.replicate->all_reduce(own, Reduce::sum, plan_.stream);
}

void GradientReduction::gather(size_t bucket, Buffer whole) {
  if (plan_.shard.size() == 1) return;
  const Buffer own = own_piece(bucket, whole);
  bytes_sent_ += bytes_to_others(own, plan_.shard);
  plan_.shard.all_gather(own, plan_.layout.buckets()[bucket].counts, whole, plan_.stream);
}

Tensor GradientReduction::view_of_piece(Buffer piece) const {
  auto block = std::make_shared<Block>(plan_.stream.device(), piece.data, piece.bytes(), nullptr);
  return Tensor(std::move(block), 0, {piece.count}, piece.dtype);
}

// Copies what is to be added to the host.
std::byte* GradientReduction::land(Buffer piece, int64_t source) {
  const size_t at = static_cast<size_t>(source) * landing_.bytes() / sources();
  const Tensor to(landing_.block(), at, {piece.count}, Dtype::f32);
  transfer(plan_.stream, to, view_of_piece(piece));
  return to.raw();
}

void GradientReduction::add_own(size_t bucket, Buffer whole) {
  const std::span<float> sum = sum_of(bucket);
  std::span<float> own = floats_of(own_piece(bucket, whole));
  if (plan_.host != nullptr) {
    own = {reinterpret_cast<float*>(land(own_piece(bucket, whole), 0)), own.size()};
  }
  const bool first = !begun_[bucket];
  begun_[bucket] = true;
  plan_.stream.run([sum, own, first] {
    if (first) {
      std::copy(own.begin(), own.end(), sum.begin());
    } else {
      add_into(sum, own);
    }
  });
}

// The ranks below this number have a gradient of this source among the first `terms`.
int64_t GradientReduction::senders_of(int64_t source, int64_t terms) const {
  return std::max<int64_t>(terms - source + plan_.sources - 1, 0) / plan_.sources;
}

// The own piece of each sender, one behind the other in the order of the ranks; `whole`: what this
// rank has of the source.
std::byte* GradientReduction::collect(size_t bucket, Buffer whole, int64_t senders,
                                      int64_t source) {
  const auto own = static_cast<int64_t>(sum_of(bucket).size());
  if (ranks() == 1) return whole.data;
  const auto staged = [&](const Tensor& staging) {
    return staging.raw() + static_cast<size_t>(source) * staging.bytes() / sources();
  };
  const int64_t n = plan_.shard.size();
  const auto here = [&](int64_t replica) {
    return std::clamp(senders - replica * n, int64_t{0}, n);
  };
  const int64_t replica = plan_.replicate == nullptr ? 0 : plan_.replicate->rank();
  View in = whole;
  Buffer received = own_piece(bucket, whole);
  if (n > 1) {
    std::vector<int64_t> in_counts(static_cast<size_t>(n)), out_counts(static_cast<size_t>(n));
    std::fill_n(out_counts.begin(), here(replica), own);
    if (plan_.shard.rank() < here(replica)) {
      in_counts = plan_.layout.buckets()[bucket].counts;
      bytes_sent_ += (in.count - own) * static_cast<int64_t>(sizeof(float));
    } else {
      in.count = 0;
    }
    received = {staged(inside_), own * here(replica), Dtype::f32};
    plan_.shard.all_to_all(in, in_counts, received, out_counts, plan_.stream);
  }
  if (replicas() == 1) return received.data;
  std::vector<int64_t> counts;
  for (int64_t r = 0; r < replicas(); ++r) counts.push_back(own * here(r));
  received.count = own * here(replica);
  bytes_sent_ += bytes_to_others(received, *plan_.replicate);
  plan_.replicate->all_gather(received, counts, {staged(all_), own * senders, Dtype::f32},
                              plan_.stream);
  return staged(all_);
}

void GradientReduction::add_each(size_t bucket, Buffer whole, int64_t terms) {
  const std::span<float> sum = sum_of(bucket);
  const auto own = static_cast<int64_t>(sum.size());
  const int64_t elements = whole.count / plan_.sources;
  std::vector<const float*> from;  // by source
  for (int64_t s = 0; s < plan_.sources; ++s) {
    const int64_t senders = senders_of(s, terms);
    std::byte* pieces = collect(bucket, whole.part(s * elements, elements), senders, s);
    if (plan_.host != nullptr && own * senders > 0) {
      pieces = land({pieces, own * senders, Dtype::f32}, s);
    }
    from.push_back(reinterpret_cast<const float*>(pieces));
  }
  plan_.stream.run([sum, from, terms] {
    const size_t sources = from.size();
    for (size_t t = 0; t < static_cast<size_t>(terms); ++t) {
      add_into(sum, {from[t % sources] + t / sources * sum.size(), sum.size()});
    }
  });
}

void GradientReduction::write_back(size_t bucket, Buffer whole) {
  const std::span<float> own = floats_of(own_piece(bucket, whole));
  if (plan_.host != nullptr) {
    const auto n = static_cast<int64_t>(own.size());
    const Tensor from(sums_.block(), static_cast<size_t>(sum_begin_[bucket]) * sizeof(float), {n},
                      Dtype::f32);
    return transfer(plan_.stream, view_of_piece(own_piece(bucket, whole)), from);
  }
  plan_.stream.run([own, sum = sum_of(bucket)] { std::copy(sum.begin(), sum.end(), own.begin()); });
}

}  // namespace shoestring
