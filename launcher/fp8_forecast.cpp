#include "launcher/fp8_forecast.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/fp8/layer.h"
#include "core/layers/context.h"
#include "core/model/transformer.h"
#include "core/panel_product.h"
#include "core/text.h"
#include "launcher/block_memory.h"

namespace shoestring {
namespace {

int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t whole_lines(int64_t bytes) { return ceiling(bytes, 64) * 64; }  // as buffers are made

// Codes and scales of [rows, columns]; of experts, whose tiles restart, at most.
int64_t bytes_of(const Fp8Encoding& e, int64_t rows, int64_t columns, int64_t experts = 1) {
  if (e.tile.whole()) return rows * columns + 4 * experts;
  const int64_t restarts = e.tile.rows > 1 ? experts - 1 : 0;
  const int64_t tiles = (ceiling(rows, e.tile.rows) + restarts) * ceiling(columns, e.tile.columns);
  return rows * columns + 4 * tiles;
}

// What every figure depends on.
struct Case {
  const RunConfig& config;
  Fp8Recipe recipe;
  std::set<std::string> narrow;  // names of the matrices that are multiplied in FP8
  Recompute policy;
  int64_t tokens, width;            // rows of a micro-batch; bytes of train.dtype
  int64_t tensor, experts, slices;  // ranks
  int64_t arriving;                 // rows that experts read for each token, of one slice
  int64_t summed;                   // rows of it that sums over its choices keep
  const Device& device;             // its threads
  bool probed = false;

  int64_t values(int64_t columns) const { return tokens * columns * width; }
  const ModelConfig& model() const { return config.model; }
};

// One matrix over `rows` rows, of all experts together: y = x w^T. Figures are bytes.
class Matrix {
 public:
  Matrix(const Case& c, const std::string& name, int64_t inputs, int64_t outputs,
         int64_t experts = 1)
      : c_(c), in_(inputs), out_(outputs), experts_(experts), rows_(c.tokens) {
    narrow_ = c.narrow.contains(name);
    const Fp8Recipe& r = c.recipe;
    const bool behind = name.ends_with("attention.output.weight");
    input_ = behind ? r.attention_output : r.activation;
    gradient_ = r.gradient;
    copy_ = behind ? r.attention_copy : r.copy;
    if (name.ends_with("experts.gate_up.weight")) input_ = r.dispatch;
    if (name.ends_with("experts.down.weight")) gradient_ = r.combine_gradient;
    if (!r.wgrad || !narrow_) copy_ = Fp8Copy::full;
    // Each of an expert's slices meets the rows of all.
    const bool routed = name.find("moe.experts.") != std::string::npos;
    if (routed) rows_ = c.tokens * c.arriving * c.slices;
    // All tensor ranks' rows meet a part of the matrix.
    const bool columns = name.ends_with("attention.output.weight") || name.ends_with("down.weight");
    const bool latent = name.ends_with("q_down.weight") || name.ends_with("kv_down.weight");
    if (routed || latent) return;
    rows_ *= c.tensor;
    (columns ? in_ : out_) /= c.tensor;
  }
  bool narrow() const { return narrow_; }
  Fp8Copy copy() const { return copy_; }
  int64_t values(int64_t columns) const { return rows_ * columns * c_.width; }
  int64_t x() const { return values(in_); }
  int64_t y() const { return values(out_); }
  // Any columns in the input's encoding.
  int64_t codes(int64_t columns) const { return bytes_of(input_, rows_, columns, experts_); }
  int64_t kept() const { return copied() + beside_copy(); }
  // The input as a probe keeps it beside its copy, to compare with.
  int64_t beside_copy() const { return watched() && copy_ != Fp8Copy::full ? x() : 0; }
  bool watched() const { return narrow_ && c_.probed; }
  // Of dy, until the weight gradient is made.
  int64_t owed() const {
    if (!narrow_ || !c_.recipe.wgrad) return y();
    return bytes_of(gradient_.transposed(), rows_, out_, experts_);
  }
  // dy itself, which a probe lets wait beside that.
  int64_t beside_owed() const { return watched() && c_.recipe.wgrad ? y() : 0; }
  // Inside the gradient of the input and of the weight, beside all these and dx.
  int64_t input_workspace() const {
    const int64_t rows = rows_at_once();
    if (!narrow_ || !c_.recipe.dgrad) return std::max(owed(), whole({rows, in_, out_}));
    const int64_t product = multiplied({rows, in_, out_}, rows * out_ + in_ * out_);
    const int64_t again = watched() ? x() + exactly({rows, in_, out_}) : 0;
    return std::max(bytes_of(gradient_, rows_, out_, experts_) + std::max(product, again), owed());
  }
  // An input that is made again is always quantised; one that is kept may serve as it is.
  int64_t weight_workspace(bool made_again = false) const {
    const int64_t rows = rows_at_once();
    if (!narrow_ || !c_.recipe.wgrad) return whole({out_, in_, rows});
    const Fp8Encoding turned = input_.transposed();
    const bool copied = copy_ == Fp8Copy::fp8 && !made_again, serves = copied && turned == input_;
    const int64_t operand =
        (copy_ == Fp8Copy::e5m6 ? x() : 0) + (serves ? 0 : bytes_of(turned, rows_, in_, experts_));
    const int64_t product = operand + multiplied({out_, in_, rows}, rows * (in_ + out_));
    if (!watched()) return product;
    // In f32 what was there and what bf16 gives, one after the other beside what the copy stood
    // for, of which experts hold the last until the end.
    const int64_t gradient = 4 * in_ * out_ * experts_;
    const int64_t told = copied && !serves ? 4 * rows_ * in_ : 0;
    return gradient + std::max(told + product,
                               gradient + exactly({out_, in_, rows}) + (experts_ > 1 ? told : 0));
  }

 private:
  // Experts go one by one; of an uneven load one has some times the mean.
  int64_t rows_at_once() const {
    const int64_t uneven = watched() ? 3 : 2;  // a comparison peaks with the longest
    return experts_ > 1 ? std::min(c_.tokens * c_.slices, uneven * ceiling(rows_, experts_))
                        : rows_;
  }
  // One product: `operands` codes as bf16, which the fast accumulator reads, and its panels.
  int64_t multiplied(const PanelSizes& sizes, int64_t operands) const {
    if (c_.recipe.arithmetic.accumulator != Accumulator::fast) return 0;
    return 2 * operands + panel_product_bytes(c_.device, sizes, Dtype::bf16);
  }
  // A product in train.dtype, with the bits of exact mode.
  int64_t exactly(const PanelSizes& sizes) const {
    return panel_product_bytes(c_.device, sizes, c_.width == 2 ? Dtype::bf16 : Dtype::f32);
  }
  int64_t copied() const {
    if (copy_ == Fp8Copy::full) return x();
    if (copy_ == Fp8Copy::fp8) return codes(in_);
    return rows_ * (ceiling(in_ * 12, 8) + 4 * ceiling(in_, 128));
  }
  int64_t whole(const PanelSizes& sizes) const {
    return c_.width == 2 ? panel_product_bytes(c_.device, sizes, Dtype::bf16) : 0;
  }
  const Case& c_;
  int64_t in_, out_, experts_, rows_;
  bool narrow_ = false;
  Fp8Encoding input_, gradient_;
  Fp8Copy copy_ = Fp8Copy::full;
};

// What a part keeps, and the most it holds while its gradients are made, what it keeps included.
// `made`: what its ops gave one another and nobody keeps, which a recompute region of the whole
// block holds again until they are done.
struct Part {
  int64_t kept = 0, peak = 0, made = 0;
  int64_t normed = 0;  // of `kept`: the normalised input, for a probe
};

// Gate, up and down of inner width f: y [d] from x [d]. `dy`: bytes of the gradient of y where
// nothing else holds it.
Part mlp_part(const Case& c, const Matrix& up, const Matrix& down, int64_t f, int64_t dy) {
  const bool fused = down.narrow() && c.recipe.swiglu_inputs;
  const bool drops = c.policy == Recompute::swiglu || c.policy == Recompute::norms;
  const int64_t gu = down.values(2 * f), product = down.x();
  const int64_t compared = fused && down.watched() ? product : 0;
  const int64_t middle = fused ? down.codes(2 * f) + compared : gu + down.kept();
  const int64_t dropped = !fused && drops && down.copy() == Fp8Copy::full ? down.kept() : 0;
  const int64_t all = up.kept() + middle;
  Part part{.kept = all - dropped,
            .made = (fused ? gu : 0) + down.y() + up.x() - up.beside_copy(),
            .normed = up.beside_copy()};
  const int64_t again = fused ? gu : 0;  // gate and up from their codes, in both phases
  part.peak = std::max({
      all + dy + product + down.input_workspace(),
      all + dy + product + down.owed() + gu + again,
      all + std::min(dy, down.beside_owed()) + down.owed() + product + again +
          std::max(again, down.weight_workspace(fused)),
      up.kept() + gu + up.x() + up.input_workspace(),
      up.kept() + up.x() + up.owed() + up.beside_owed() + up.weight_workspace(),
  });
  return part;
}

Part dense_part(const Case& c, const std::string& at, int64_t f) {
  const int64_t d = c.model().hidden;
  return mlp_part(c, {c, at + "gate_up.weight", d, 2 * f}, {c, at + "down.weight", f, d},
                  f / c.tensor, 0);
}

// The router reads the normalised values in train.dtype; the experts' outputs are kept for the
// gradient of the gates.
Part sparse_part(const Case& c, const std::string& block) {
  const MoeConfig& m = c.model().moe;
  const int64_t d = c.model().hidden, rows = c.values(c.summed * d);
  const std::string at = block + "moe.";
  const int64_t width = m.ffn / c.slices, here = m.experts / c.experts;
  const Matrix up(c, at + "experts.gate_up.weight", d, 2 * width, here);
  const Matrix down(c, at + "experts.down.weight", width, d, here);
  const Part experts = mlp_part(c, up, down, width, c.values(c.arriving * d));
  Part shared = m.shared > 0 ? dense_part(c, at + "shared.", m.shared * m.ffn) : Part();
  // A probe keeps the input that the router keeps anyway.
  const Matrix common(c, at + "shared.gate_up.weight", d, 2 * m.ffn);
  if (m.shared > 0) {
    shared.kept -= common.beside_copy();
    shared.peak -= common.beside_copy();
  }
  const int64_t router = c.values(d) + 4 * c.tokens * (m.experts + 3 * m.chosen);
  const int64_t dx = m.shared > 0 ? c.values(d) : 0;  // of the shared experts
  Part part{.kept = router + experts.kept + rows + shared.kept,
            .made = experts.made + shared.made + 2 * c.values(d)};
  part.peak = std::max({router + experts.kept + rows + shared.peak,
                        router + experts.kept + 2 * rows + dx, router + dx + experts.peak});
  return part;
}

// The products before attention: what they keep (`first`: of the normalised input; `ups`: of the
// latents), what norms over latents or heads keep, their roots a token, and the most that their
// gradients hold beside those of q, k and v.
struct Projections {
  int64_t first = 0, ups = 0, norms = 0, roots = 0, peak = 0;
  int64_t made = 0;    // between the products and q, k and v
  int64_t beside = 0;  // the normalised input, where a probe keeps it
};

int64_t backward_workspace(const Matrix& m) {
  return std::max(m.input_workspace(), m.owed() + m.weight_workspace());
}

Projections latent_projections(const Case& c, const std::string& at) {
  const ModelConfig& m = c.model();
  const MlaConfig& a = m.mla;
  const Matrix down(c, at + "kv_down.weight", m.hidden, a.kv_latent + a.rope_dim);
  const Matrix up(c, at + "kv_up.weight", a.kv_latent, m.heads * (a.nope_dim + a.v_dim));
  Projections p{.first = down.kept(),
                .ups = up.kept(),
                .norms = c.values(a.kv_latent + a.q_latent),
                .roots = a.q_latent > 0 ? 2 : 1,
                .peak = up.y() + up.x() + backward_workspace(up),
                .made = down.y() + up.y() + c.values(m.heads * a.qk_dim() + a.q_latent),
                .beside = down.beside_copy()};
  if (a.q_latent > 0) {
    p.ups += Matrix(c, at + "q_up.weight", a.q_latent, m.heads * a.qk_dim()).kept();
  }
  return p;
}

Projections grouped_projections(const Case& c, const std::string& at, int64_t q, int64_t kv) {
  const ModelConfig& m = c.model();
  const Matrix qkv(c, at + "qkv.weight", m.hidden, q + 2 * kv);
  return {.first = qkv.kept(),
          .ups = 0,
          .norms = m.qk_norm ? c.values(q + kv) : 0,
          .roots = m.qk_norm ? m.heads + m.kv_heads : 0,
          .peak = std::max(qkv.y(), qkv.x() + backward_workspace(qkv)),
          .made = qkv.y(),
          .beside = qkv.beside_copy()};
}

// What attention's projections and its core keep and hold, without the norm before them. Attention
// reads q, k, v and its output; in E5M6 the output's product reads the same copy.
Part attention_part(const Case& c, const std::string& block, int64_t workspace) {
  const ModelConfig& m = c.model();
  const bool latent = m.mla.on();
  const std::string at = block + "attention.";
  const int64_t hd = m.dim_of_head(), kv = m.kv_heads * hd;
  const int64_t qkv = latent ? m.heads * (2 * m.mla.qk_dim() + m.mla.v_dim) : m.heads * hd + 2 * kv;
  const Matrix output(c, at + "output.weight", m.attention_width(), m.hidden);
  const Projections before =
      latent ? latent_projections(c, at) : grouped_projections(c, at, m.heads * hd, kv);
  const bool narrow = output.copy() == Fp8Copy::e5m6;
  // Where attention keeps its output, a probe keeps no other.
  const int64_t beside = narrow ? 0 : output.x() - output.beside_copy();
  const int64_t kept_output = output.copy() == Fp8Copy::full ? output.x() : beside + output.kept();
  const int64_t made = before.first + before.norms + before.ups;
  const int64_t core = c.values(qkv) + kept_output + 4 * c.tokens * (m.heads + before.roots);
  Part part{.kept = made + core,
            .made = c.values(m.hidden) + output.x() + output.y() + before.made};
  part.made -= before.beside + (narrow ? output.beside_copy() : 0);
  part.normed = before.beside;
  part.peak = std::max({made + core + output.x() + backward_workspace(output),
                        made + core + output.x() * (narrow ? 2 : 1) + c.values(qkv) + workspace,
                        made + c.values(qkv) + before.peak});
  if (c.policy == Recompute::attention) {
    const int64_t raw = c.values(m.mla.kv_latent + m.mla.rope_dim + m.mla.q_latent);
    part.kept = latent ? before.first + raw : c.values(m.hidden);
    part.peak += part.made;
  }
  return part;
}

// One block: its two halves with their norms, under the policy.
class BlockBytes {
 public:
  BlockBytes(const Case& c, int64_t index, int64_t workspace) {
    const ModelConfig& m = c.model();
    const std::string name =
        index < m.layers ? cat("layers.", index, ".") : cat("mtp.", index - m.layers, ".");
    const bool sparse = m.moe.sparse(std::min(index, m.layers - 1));
    const Part attention = attention_part(c, name, workspace);
    const Part mlp = sparse ? sparse_part(c, name) : dense_part(c, name + "mlp.", m.ffn);
    const int64_t sum = c.values(m.hidden) + 4 * c.tokens, stream = c.values(m.hidden);
    const int64_t attention_whole = attention.kept;
    kept_ = 2 * sum + attention.kept + mlp.kept;
    peak_ = stream + std::max(2 * sum + attention_whole + mlp.peak, sum + attention.peak + stream);
    if (c.policy == Recompute::norms) {
      kept_ -= attention.normed + (sparse ? c.values(m.hidden) : mlp.normed);
    }
    if (c.policy == Recompute::norms) peak_ += c.values(m.hidden);
    if (c.policy == Recompute::block) {
      kept_ = c.values(m.hidden);
      peak_ = kept_ + stream +
              std::max(2 * sum + attention_whole + mlp.peak + attention.made + mlp.made,
                       sum + attention.peak + stream + attention.made);
    }
  }
  int64_t kept() const { return kept_; }
  int64_t peak() const { return peak_; }

 private:
  int64_t kept_ = 0, peak_ = 0;
};

// Beside its block a prediction module keeps the embedding and what it is joined to, sums before
// the head and the gradient that the head made in the forward pass.
int64_t module_extra(const Case& c) {
  return c.values(c.model().hidden * (c.policy == Recompute::block ? 3 : 6));
}

// One copy serves both products where its tiles are square.
int64_t codes_of_weight(const Fp8Recipe& r, const ParamInfo& info, int64_t experts) {
  const bool stacked = info.name.find(".experts.") != std::string::npos;
  const int64_t count = stacked ? experts : 1, rows = info.shape[0] / count;
  auto copy = [&](const Fp8Encoding& e) {
    const int64_t codes = info.shape.elements(), all = count * bytes_of(e, rows, info.shape[1]);
    return whole_lines(codes) + whole_lines(all - codes);
  };
  const bool square = r.weight.transposed() == r.weight;
  if (square) return r.fprop || r.dgrad ? copy(r.weight) : 0;
  return (r.fprop ? copy(r.weight) : 0) + (r.dgrad ? copy(r.weight.transposed()) : 0);
}

}  // namespace

int64_t forecast_codes(const RunConfig& config, const std::vector<ParamInfo>& params,
                       int64_t experts, const std::vector<std::string>& fallen) {
  const Fp8Recipe recipe = resolve(config.precision);
  int64_t bytes = 0;
  for (const ParamInfo& p : params) {
    if (!multiplies_in_fp8(recipe, p, config.model.layers)) continue;
    if (std::find(fallen.begin(), fallen.end(), p.name) != fallen.end()) continue;
    bytes += codes_of_weight(recipe, p, experts);
  }
  return bytes;
}

Fp8Forecast forecast_fp8(const RunConfig& config, const Fp8ForecastInput& in) {
  const ModelConfig& m = config.model;
  const Device device(DeviceKind::cpu, 0, in.threads);
  Case c{.config = config,
         .recipe = resolve(config.precision),
         .narrow = {},
         .policy = recompute_from_name(config.train.recompute),
         .tokens = in.rows,
         .width = static_cast<int64_t>(size_of(dtype_from_name(config.train.dtype))),
         .tensor = in.tensor,
         .experts = in.experts,
         .slices = in.slices,
         .arriving = in.fixed_rows > 0 ? in.fixed_rows : m.moe.chosen,
         .summed = summed_rows(m.moe.chosen,
                               {.fixed_rows = in.fixed_rows, .summing_nodes = in.summing_nodes}),
         .device = device,
         .probed = in.probed};
  for (const ParamInfo& p : parameters_of(m, in.chunk)) {
    if (!multiplies_in_fp8(c.recipe, p, m.layers)) continue;
    if (std::find(in.fallen.begin(), in.fallen.end(), p.name) != in.fallen.end()) continue;
    c.narrow.insert(p.name);
  }
  // Blocks from the first one on, their modules' own values with them; each one's gradients are
  // made while all before it are kept, the last one's beside the head's.
  const int64_t modules = in.chunk.head ? m.mtp.depth : 0;
  Fp8Forecast all;
  int64_t kept = 4 * c.tokens * (1 + modules);  // the roots of the last norms
  for (int64_t i = in.chunk.first_block; i < in.chunk.last_block + modules; ++i) {
    const BlockBytes block(c, i, in.attention_workspace);
    if (i >= m.layers) kept += module_extra(c);
    all.backward = std::max(all.backward, kept + block.peak());
    kept += block.kept();
  }
  all.forward = kept;
  if (in.chunk.head) all.forward += c.values((2 + 2 * c.tensor) * m.hidden) + in.head_workspace;
  all.kept = kept + c.values(m.hidden);
  return all;
}

}  // namespace shoestring
