#include "core/fp8/layer.h"

#include <charconv>

#include "core/check.h"
#include "core/matmul.h"
#include "core/ops/convert.h"

namespace shoestring {
namespace {

Shape with_columns(Shape shape, int64_t columns) {
  shape.set(shape.rank() - 1, columns);
  return shape;
}

// The product in train.dtype, with the bits of exact mode: no layout of ranks changes them.
void multiply_full(Stream& stream, const Tensor& c, const Tensor& a, const Tensor& b,
                   MatmulSpec spec) {
  spec.exact = true;
  stream.run([&device = stream.device(), c, a, b, spec] { matmul(device, c, a, b, spec); });
}

bool is_behind_attention(const std::string& name) {
  return name.ends_with(".attention.output.weight");
}

// The block that a parameter belongs to; -1: none.
int64_t block_of(const std::string& name) {
  constexpr std::string_view prefix = "layers.";
  if (!name.starts_with(prefix)) return -1;
  int64_t block = -1;
  std::from_chars(name.data() + prefix.size(), name.data() + name.size(), block);
  return block;
}

}  // namespace

bool multiplies_in_fp8(const Fp8Recipe& recipe, const ParamInfo& info, int64_t layers) {
  if (info.param_class != ParamClass::hidden || info.shape.rank() != 2) return false;
  if (info.name.ends_with(".moe.router.weight")) return false;  // core/ops/router_logits.h
  for (const std::string& part : recipe.keep_bf16) {
    if (!part.empty() && info.name.find(part) != std::string::npos) return false;
  }
  const int64_t block = block_of(info.name);
  return block < 0 || (block >= recipe.first_layers && block < layers - recipe.last_layers);
}

Fp8Layer::Fp8Layer(const Fp8Recipe& recipe, const ParamStore& store, const Param& param)
    : recipe_(recipe), store_(&store), param_(&param) {
  const bool behind_attention = is_behind_attention(param.info.name);
  input_ = behind_attention ? recipe.attention_output : recipe.activation;
  copy_ = behind_attention ? recipe.attention_copy : recipe.copy;
  gradient_ = recipe.gradient;
  if (param.info.name.ends_with(".experts.gate_up.weight")) input_ = recipe.dispatch;
  if (param.info.name.ends_with(".experts.down.weight")) gradient_ = recipe.combine_gradient;
  if (!recipe.wgrad) copy_ = Fp8Copy::full;
}

const Fp8Tensor& Fp8Layer::cached(Stream& stream, const Tensor& w,
                                  const std::vector<int64_t>& borders, bool along_outputs) {
  const Fp8Encoding encoding = along_outputs ? recipe_.weight.transposed() : recipe_.weight;
  const bool same = encoding == recipe_.weight;
  Cached& cached = weights_[along_outputs && !same ? 1 : 0];
  if (cached.version != store_->version() || !cached.codes) {
    cached.codes = {};  // the old ones need not stand beside the new
    const Fp8Segments s = quantise_segments(stream, w, encoding, borders, MemoryKind::weights);
    cached.codes = {s.codes, s.scales, s.encoding};
    cached.version = store_->version();
  }
  return cached.codes;
}

const Fp8Tensor& Fp8Layer::weight_codes(Stream& stream, const Tensor& w, bool along_outputs) {
  return cached(stream, w, {0, w.rows()}, along_outputs);
}

Fp8Segments Fp8Layer::weight_segments(Stream& stream, const Tensor& w,
                                      const std::vector<int64_t>& borders, bool along_outputs) {
  const Fp8Tensor& codes = cached(stream, w, borders, along_outputs);
  return {codes.codes, codes.scales, codes.encoding, borders};
}

void Fp8Layer::compare(LinearProduct product, const Tensor& got, const Tensor& want) {
  probe_->compare(param_->index, product, got, want);
}

void Fp8Layer::tell(LinearProduct product, const Tensor& x, const Fp8Tensor& x8) {
  probe_->tell(param_->index, product, x, x8);
}

void Fp8Layer::multiply(Stream& stream, const Tensor& y, const Tensor& x, const Fp8Tensor& x8,
                        const Tensor& w) {
  if (!recipe_.fprop) {
    multiply_full(stream, y, x, w, {.transpose_b = true});
    return;
  }
  fp8_product(stream, {.c = y,
                       .a = x8,
                       .b = weight_codes(stream, w, false),
                       .transpose_b = true,
                       .arithmetic = recipe_.arithmetic});
}

Tensor Fp8Layer::forward(Stream& stream, const Tensor& x, const Fp8Tensor& x8, const Tensor& w) {
  Tensor y(stream.device(), with_columns(x.shape(), w.shape()[0]), x.dtype());
  multiply(stream, y, x, x8, w);
  if (recipe_.fprop && probe_ != nullptr && probe_->watches_forward()) {
    Tensor full(stream.device(), y.shape(), y.dtype(), MemoryKind::workspace);
    multiply_full(stream, full, x, w, {.transpose_b = true});
    stream.synchronize();
    compare(LinearProduct::fprop, y, full);
    tell(LinearProduct::fprop, x, x8);
    tell(LinearProduct::fprop, w, weight_codes(stream, w, false));
  }
  return y;
}

Fp8Kept Fp8Layer::keep(Stream& stream, const Tensor& x, const Fp8Tensor& x8,
                       const E5M6Tensor& made) const {
  Fp8Kept kept;
  if (copy_ == Fp8Copy::fp8) {
    kept.codes = x8.codes;
    kept.scales = x8.scales;
  } else if (copy_ == Fp8Copy::e5m6) {
    const E5M6Tensor stored = made.codes ? made : store_e5m6(stream, x);
    kept.codes = stored.codes;
    kept.scales = stored.scales;
  }
  if (copy_ == Fp8Copy::full || probe_ != nullptr) kept.values = x;
  return kept;
}

void Fp8Layer::multiply_gradient(Stream& stream, const Tensor& dx, const Tensor& dy,
                                 const Fp8Tensor& dy8, const Tensor& w) {
  if (!recipe_.dgrad) {
    multiply_full(stream, dx, dy, w, {});
    return;
  }
  fp8_product(
      stream,
      {.c = dx, .a = dy8, .b = weight_codes(stream, w, true), .arithmetic = recipe_.arithmetic});
}

void Fp8Layer::compare_input(Stream& stream, const Tensor& dx, const Tensor& dy,
                             const Fp8Tensor& dy8, const Tensor& w) {
  Tensor full(stream.device(), dx.shape(), dx.dtype(), MemoryKind::workspace);
  multiply_full(stream, full, dy, w, {});
  stream.synchronize();
  compare(LinearProduct::dgrad, dx, full);
  tell(LinearProduct::dgrad, dy, dy8);
  tell(LinearProduct::dgrad, w, weight_codes(stream, w, true));
}

// Square tiles, and one scale for all, serve both directions as they are.
Fp8Kept Fp8Layer::owe(Stream& stream, const Tensor& dy, const Fp8Tensor& dy8) const {
  Fp8Kept owed;
  if (!recipe_.wgrad || probe_ != nullptr) owed.values = dy;
  if (!recipe_.wgrad) return owed;
  const bool serves = dy8 && gradient_.transposed() == gradient_;
  const Fp8Tensor along_tokens = serves ? dy8 : quantise(stream, dy, gradient_.transposed());
  owed.codes = along_tokens.codes;
  owed.scales = along_tokens.scales;
  return owed;
}

Tensor Fp8Layer::input_gradient(Stream& stream, const Tensor& dy, const Tensor& w, Fp8Kept& owed) {
  Tensor dx(stream.device(), with_columns(dy.shape(), w.shape()[1]), dy.dtype());
  const bool kept = recipe_.wgrad && gradient_.transposed() == gradient_;
  Fp8Tensor dy8;
  if (recipe_.dgrad) {
    dy8 = quantise(stream, dy, gradient_, kept ? MemoryKind::activations : MemoryKind::workspace);
  }
  multiply_gradient(stream, dx, dy, dy8, w);
  if (recipe_.dgrad && probe_ != nullptr) compare_input(stream, dx, dy, dy8, w);
  if (!kept) dy8 = {};  // before the other tiling is made
  owed = owe(stream, dy, dy8);
  return dx;
}

void Fp8Layer::multiply_codes(Stream& stream, const Fp8Kept& dy, const Tensor& x,
                              const Fp8Tensor& x8, const Tensor& dw) {
  const Fp8Tensor dy8{dy.codes, dy.scales, gradient_.transposed()};
  fp8_product(stream, {.c = dw,
                       .a = dy8,
                       .b = x8,
                       .transpose_a = true,
                       .accumulate = true,
                       .arithmetic = recipe_.arithmetic});
  if (probe_ != nullptr && dy.values && x) {
    stream.synchronize();
    tell(LinearProduct::wgrad, dy.values, dy8);
    tell(LinearProduct::wgrad, x, x8);
  }
}

void Fp8Layer::multiply_values(Stream& stream, const Fp8Kept& dy, const Tensor& x,
                               const Tensor& dw) {
  if (!recipe_.wgrad) {
    multiply_full(stream, dw, dy.values, x, {.transpose_a = true, .accumulate = true});
    return;
  }
  multiply_codes(stream, dy, x, quantise(stream, x, input_.transposed(), MemoryKind::workspace),
                 dw);
}

template <class F>
void Fp8Layer::compare_added(Stream& stream, const Fp8Kept& dy, const Tensor& full,
                             const Tensor& dw, F add) {
  if (probe_ == nullptr || !recipe_.wgrad || !full || !dy.values) return add();
  const Tensor added = convert(stream, dw, Dtype::f32, MemoryKind::workspace);
  add();
  const Tensor want = Tensor::zeros(stream.device(), dw.shape(), Dtype::f32, MemoryKind::workspace);
  multiply_full(stream, want, dy.values, full, {.transpose_a = true, .accumulate = true});
  scale(stream, added, -1);
  accumulate(stream, added, dw);
  stream.synchronize();
  compare(LinearProduct::wgrad, added, want);
}

void Fp8Layer::weight_gradient(Stream& stream, const Fp8Kept& dy, const MadeAgain& x,
                               const Tensor& dw) {
  compare_added(stream, dy, x.full, dw, [&] { multiply_values(stream, dy, x.input, dw); });
}

void Fp8Layer::weight_gradient(Stream& stream, const Fp8Kept& dy, const Fp8Kept& kept,
                               const Tensor& dw) {
  compare_added(stream, dy, kept.values, dw, [&] {
    if (copy_ == Fp8Copy::full) {
      multiply_values(stream, dy, kept.values, dw);
      return;
    }
    if (copy_ == Fp8Copy::e5m6) {
      const int64_t columns = param_->info.shape[1];
      const Tensor x = load_e5m6(stream, {kept.codes, kept.scales}, columns, dtype());
      multiply_values(stream, dy, x, dw);
      return;
    }
    const Fp8Tensor stored{kept.codes, kept.scales, input_};
    const Fp8Encoding along_tokens = input_.transposed();
    const bool serves = along_tokens == input_;
    Tensor told = kept.values;  // of a copy made again, what the copy stands for
    if (probe_ != nullptr && told && !serves) told = dequantise(stream, stored, Dtype::f32);
    multiply_codes(stream, dy, told, serves ? stored : requantise(stream, stored, along_tokens),
                   dw);
  });
}

Fp8Plan::Fp8Plan(const Fp8Recipe& recipe, const ParamStore& store, int64_t layers)
    : recipe_(recipe), fallen_(store.params().size(), false) {
  for (const Param& p : store.params()) {
    by_index_.push_back(multiplies_in_fp8(recipe, p.info, layers)
                            ? std::make_unique<Fp8Layer>(recipe, store, p)
                            : nullptr);
    if (by_index_.back()) list_.push_back(by_index_.back().get());
  }
}

Fp8Layer* Fp8Plan::layer(const Param& param) const {
  return fell_back(param) ? nullptr : by_index_.at(static_cast<size_t>(param.index)).get();
}

void Fp8Plan::fall_back(const Param& param) {
  const auto index = static_cast<size_t>(param.index);
  fallen_.at(index) = true;
  if (Fp8Layer* layer = by_index_.at(index).get()) layer->forget_weight_codes();
}

void Fp8Plan::set_probe(Fp8Probe* probe) {
  for (Fp8Layer* layer : list_) layer->set_probe(probe);
}

}  // namespace shoestring
