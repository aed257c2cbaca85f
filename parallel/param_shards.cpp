#include "parallel/param_shards.h"

#include <algorithm>

#include "core/check.h"
#include "core/transfer.h"

namespace shoestring {

ParamMemory memory_of_stage(int64_t zero_stage, Dtype compute, bool offloaded) {
  const bool copies = compute != Dtype::f32;
  return {.weights = zero_stage < 3,
          .masters = copies && zero_stage == 0 && !offloaded,
          .gradients = zero_stage < 2};
}

ParamShards::ParamShards(ParamShardsPlan plan) : plan_(std::move(plan)) {
  for (const FlatRange& range : plan_.owned) elements_ += range.elements();
  const bool copies = plan_.store.compute() == Dtype::bf16, whole = plan_.zero_stage < 3;
  check(copies || plan_.store.compute() == Dtype::f32, "shards of f32 or bf16 weights");
  Device& device = plan_.store.device();
  Device& memory = offloaded() ? *plan_.host : device;
  const auto zeros = [&](Device& where, Dtype dtype, MemoryKind kind) {
    return Tensor::zeros(where, {elements_}, dtype, kind);
  };
  const bool in_store = whole && !offloaded() && (!copies || plan_.zero_stage == 0);
  if (!in_store) {
    const bool read = !copies && !offloaded();  // by the gathers
    masters_ = zeros(memory, Dtype::f32, read ? MemoryKind::weights : MemoryKind::master_weights);
  }
  if (copies && (!whole || offloaded())) copies_ = zeros(memory, Dtype::bf16, MemoryKind::weights);
  if (whole) return;
  weights_ = offloaded() ? zeros(device, plan_.store.compute(), MemoryKind::weights)
             : copies    ? copies_
                         : masters_;
}

FlatSpan<float> ParamShards::master() const {
  if (!masters_) return {plan_.store.master()};
  return {masters_.span<float>(), 0, plan_.owned};
}

FlatSpan<BFloat16> ParamShards::copies() const {
  if (!copies_) return {plan_.store.compute_copy()};
  return {copies_.span<BFloat16>(), 0, plan_.owned};
}

void ParamShards::initialise(uint64_t seed) {
  plan_.store.initialise(seed);
  if (!masters_) return;
  int64_t at = 0;
  for (const FlatRange& range : plan_.owned) {
    for (const Param& p : plan_.store.params()) {
      const int64_t begin = std::max(range.begin, p.offset);
      const int64_t end = std::min(range.end, p.offset + p.elements);
      if (begin >= end) continue;
      float* to = masters_.data<float>() + at + begin - range.begin;
      initial_values(p, seed, begin - p.offset, {to, static_cast<size_t>(end - begin)});
    }
    at += range.elements();
  }
  refresh_copies();
  Stream stream = Stream::immediate(plan_.store.device());
  publish(stream);
}

void ParamShards::refresh_copies() {
  const FlatSpan<float> from = master();
  const FlatSpan<BFloat16> to = copies();
  if (to.values.empty()) return;
  int64_t at = 0;
  for (const FlatRange& range : plan_.owned) {
    const int64_t source = from.ranges.empty() ? range.begin : at;
    const int64_t target = to.ranges.empty() ? range.begin : at;
    for (int64_t i = 0; i < range.elements(); ++i) {
      to.values[static_cast<size_t>(target + i)] =
          BFloat16(from.values[static_cast<size_t>(source + i)]);
    }
    at += range.elements();
  }
}

// A view on the store's array that ops read.
Tensor ParamShards::store_piece(FlatRange range) const {
  const ParamStore& store = plan_.store;
  const bool copies = store.compute() == Dtype::bf16;
  std::byte* array = copies ? reinterpret_cast<std::byte*>(store.compute_copy().data())
                            : reinterpret_cast<std::byte*>(store.master().data());
  const size_t width = size_of(store.compute());
  const auto bytes = static_cast<size_t>(range.elements()) * width;
  auto block = std::make_shared<Block>(
      store.device(), array + static_cast<size_t>(range.begin) * width, bytes, nullptr);
  return Tensor(std::move(block), 0, {range.elements()}, store.compute());
}

void ParamShards::publish(Stream& stream) {
  if (!offloaded()) return;
  const Tensor& from = copies_ ? copies_ : masters_;
  if (weights_) return transfer(stream, weights_, from);
  size_t at = 0;
  for (const FlatRange& range : plan_.owned) {
    const Tensor part(from.block(), at, {range.elements()}, from.dtype());
    transfer(stream, store_piece(range), part);
    at += part.bytes();
  }
}

}  // namespace shoestring
