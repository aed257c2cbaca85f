#include "core/param.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/nearest_name.h"
#include "core/parallel_for.h"
#include "core/random.h"
#include "core/text.h"

namespace shoestring {

std::string_view name_of(ParamClass c) {
  constexpr std::string_view names[] = {"embedding", "hidden", "head", "gain", "bias"};
  return names[static_cast<int>(c)];
}

ParamStore::ParamStore(Device& device, std::vector<ParamInfo> infos, Dtype compute)
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
  const bool copies = compute != Dtype::f32;
  master_ = Tensor::zeros(device, {elements_}, Dtype::f32,
                          copies ? MemoryKind::master_weights : MemoryKind::weights);
  gradients_ = Tensor::zeros(device, {elements_}, gradient_type(), MemoryKind::gradients);
  if (copies) compute_copy_ = Tensor::zeros(device, {elements_}, compute, MemoryKind::weights);
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

std::span<BFloat16> ParamStore::compute_copy() const {
  if (compute_ != Dtype::bf16) return {};
  return compute_copy_.span<BFloat16>();
}

Tensor ParamStore::master(const Param& p) const {
  return Tensor(master_.block(), static_cast<size_t>(p.offset) * 4, p.info.shape, Dtype::f32);
}

Tensor ParamStore::gradient(const Param& p) const {
  const size_t offset = static_cast<size_t>(p.offset) * size_of(gradient_type());
  return Tensor(gradients_.block(), offset, p.info.shape, gradient_type());
}

Tensor ParamStore::weight(const Param& p) const {
  if (compute_ == Dtype::f32) return master(p);
  return Tensor(compute_copy_.block(), static_cast<size_t>(p.offset) * size_of(compute_),
                p.info.shape, compute_);
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

void ParamStore::initialise(uint64_t seed) {
  for (const Param& p : params_) {
    float* values = master().data() + p.offset;
    const RandomStream stream(seed, cat("init/", p.info.name));
    const double deviation = p.info.deviation, fill = p.info.fill;
    parallel_for(*device_, p.elements, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        values[i] = static_cast<float>(
            deviation == 0 ? fill : deviation * stream.normal(static_cast<uint64_t>(i)));
      }
    });
  }
  refresh_compute(0, elements_);
  raise_version();
}

void ParamStore::zero_gradients() {
  const size_t width = size_of(gradient_type());
  parallel_for(*device_, elements_, int64_t{1} << 16, [&](int64_t begin, int64_t end) {
    std::memset(gradients_.raw() + static_cast<size_t>(begin) * width, 0,
                static_cast<size_t>(end - begin) * width);
  });
}

void ParamStore::refresh_compute(int64_t begin, int64_t end) {
  if (compute_ == Dtype::f32) return;
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
