#include "core/param.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/nearest_name.h"
#include "core/parallel_for.h"
#include "core/param_index.h"
#include "core/random.h"
#include "core/text.h"

namespace shoestring {

std::string_view name_of(ParamClass c) {
  constexpr std::string_view names[] = {"embedding", "hidden", "head", "gain", "bias"};
  return names[static_cast<int>(c)];
}

ParamStore::ParamStore(Device& device, std::vector<ParamInfo> infos, Dtype compute,
                       const ParamMemory& memory)
    : device_(&device), compute_(compute) {
  if (compute != Dtype::f32 && compute != Dtype::bf16 && compute != Dtype::f64) {
    fail_usage(cat("compute type ", name_of(compute), " cannot hold weights; use f32 or bf16"));
  }
  for (ParamInfo& info : infos) {
    Param p{
        .info = std::move(info), .offset = elements_, .index = static_cast<int>(params_.size())};
    p.elements = p.info.shape.elements();
    elements_ += (p.elements + alignment - 1) / alignment * alignment;
    params_.push_back(std::move(p));
  }
  const auto zeros = [&](Dtype dtype, MemoryKind kind) {
    return Tensor::zeros(device, {elements_}, dtype, kind);
  };
  const bool copies = compute != Dtype::f32;
  if (copies ? memory.masters : memory.weights) {
    master_ = zeros(Dtype::f32, copies ? MemoryKind::master_weights : MemoryKind::weights);
  }
  if (memory.gradients) gradients_ = zeros(gradient_type(), MemoryKind::gradients);
  if (copies && memory.weights) compute_copy_ = zeros(compute, MemoryKind::weights);
}

const Param& ParamStore::param(std::string_view name) const {
  std::vector<std::string> names;
  for (const Param& p : params_) {
    if (p.info.name == name) return p;
    names.push_back(p.info.name);
  }
  fail(cat("no parameter is called '", name, "'; did you mean '", nearest_name(name, names), "'?"));
}

int64_t ParamStore::parameters() const {
  int64_t sum = 0;
  for (const Param& p : params_) sum += p.elements;
  return sum;
}

std::span<float> ParamStore::gradients() const {
  return gradients_ ? gradients_.span<float>() : std::span<float>();
}

std::span<BFloat16> ParamStore::compute_copy() const {
  if (compute_ != Dtype::bf16 || !compute_copy_) return {};
  return compute_copy_.span<BFloat16>();
}

Tensor ParamStore::view(const Tensor& array, const Param& p, std::string_view what) const {
  if (!array) {
    fail(cat("this store has no memory for ", what, ", but those of ", p.info.name,
             " were asked for"));
  }
  const size_t offset = static_cast<size_t>(p.offset) * size_of(array.dtype());
  return Tensor(array.block(), offset, p.info.shape, array.dtype());
}

Tensor ParamStore::master(const Param& p) const { return view(master_, p, "masters"); }

Tensor ParamStore::gradient(const Param& p) const { return view(gradients_, p, "gradients"); }

Tensor ParamStore::weight(const Param& p) const {
  return view(compute_ == Dtype::f32 ? master_ : compute_copy_, p, "weights");
}

Tensor ParamStore::state(std::string_view name, Shape shape) {
  for (const ModelState& s : states_) {
    if (s.name != name) continue;
    check_tensor("model state", name, s.values, shape, Dtype::f32);
    return s.values;
  }
  const Tensor zeros = Tensor::zeros(*device_, shape, Dtype::f32, MemoryKind::other);
  states_.push_back({std::string(name), zeros});
  return zeros;
}

void initial_values(const Param& p, uint64_t seed, int64_t begin, std::span<float> values) {
  const RandomStream stream(seed, cat("init/", p.info.name));
  const double deviation = p.info.deviation, fill = p.info.fill;
  const int64_t end = begin + static_cast<int64_t>(values.size());
  for (int64_t at = begin; at < end;) {
    const WholeRun run = whole_run(p.info, at, end);
    for (int64_t i = 0; i < run.elements; ++i, ++at) {
      values[static_cast<size_t>(at - begin)] = static_cast<float>(
          deviation == 0 ? fill : deviation * stream.normal(static_cast<uint64_t>(run.whole + i)));
    }
  }
}

void ParamStore::initialise(uint64_t seed) {
  constexpr int64_t grain = 4096;
  for (const Param& p : params_) {
    parallel_for(*device_, p.elements, grain, [&](int64_t begin, int64_t end) {
      const auto count = static_cast<size_t>(end - begin);
      if (master_) {
        return initial_values(p, seed, begin, {master().data() + p.offset + begin, count});
      }
      if (compute_copy().empty()) return;
      std::vector<float> values(count);
      initial_values(p, seed, begin, values);
      BFloat16* to = compute_copy().data() + p.offset + begin;
      for (size_t i = 0; i < count; ++i) to[i] = BFloat16(values[i]);
    });
  }
  if (master_) refresh_compute(0, elements_);
  raise_version();
}

void ParamStore::zero_gradients() {
  if (!gradients_) return;
  const size_t width = size_of(gradient_type());
  parallel_for(*device_, elements_, int64_t{1} << 16, [&](int64_t begin, int64_t end) {
    std::memset(gradients_.raw() + static_cast<size_t>(begin) * width, 0,
                static_cast<size_t>(end - begin) * width);
  });
}

void ParamStore::refresh_compute(int64_t begin, int64_t end) {
  if (compute_ == Dtype::f32 || !compute_copy_) return;
  const float* from = master().data();
  parallel_for(*device_, end - begin, int64_t{1} << 16, [&](int64_t b, int64_t e) {
    if (compute_ == Dtype::bf16) {
      BFloat16* to = compute_copy().data();
      for (int64_t i = begin + b; i < begin + e; ++i) to[i] = BFloat16(from[i]);
    } else {
      double* to = compute_copy_.data<double>();
      for (int64_t i = begin + b; i < begin + e; ++i) to[i] = from[i];
    }
  });
}

}  // namespace shoestring
