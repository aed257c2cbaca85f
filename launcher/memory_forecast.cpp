#include "launcher/memory_forecast.h"

#include <algorithm>

#include <unistd.h>

#include <fstream>

#include "core/check.h"
#include "core/counted.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/instruction_set.h"
#include "core/layers/context.h"
#include "core/model/transformer.h"
#include "core/ops/attention_products.h"
#include "core/ops/head_loss.h"
#include "core/panel_product.h"
#include "core/text.h"
#include "launcher/fp8_forecast.h"
#include "launcher/progress.h"

namespace shoestring {
namespace {

// Sizes of one block in values a token. d hidden, f ffn; q, k, v and o: widths of all heads; of a
// sparse block E experts, K chosen of inner width m, and the width of the shared ones.
struct BlockSizes {
  int64_t d, f, q, k, v, o;
  int64_t latents, raw_latents;  // what latent attention keeps before q, k and v; without its norms
  int64_t head_norms;            // normalised q and k
  int64_t roots;                 // f32: inverse roots of norms and logarithms of heads' sums
  int64_t experts = 0, chosen = 0, inner = 0, shared = 0;  // chosen is 0 in a dense block

  // What the ops of each half save (core/ops): the sum and the normalised sum; q, k, v and the
  // output of attention; gate, up and their product.
  int64_t core() const { return q + k + v + o + head_norms + latents; }
  int64_t attention() const { return 2 * d + core(); }
  // Of a sparse block also the rows that its experts read and write.
  int64_t product() const { return chosen > 0 ? chosen * inner + shared : f; }
  int64_t mlp() const { return 2 * d + 3 * product() + 2 * chosen * d; }
  // While the gradient of gate and up is made: what was dropped is back, the product is gone; three
  // f of gradients and the stream's. In a sparse block the shared mlp's gradient may need most,
  // that of the experts' outputs, or that of their gates and ups.
  int64_t mlp_backward() const {
    if (chosen == 0) return mlp() + 2 * f + d;
    const int64_t outputs = 3 * chosen * (d + inner), gates = chosen * (d + 5 * inner);
    return std::max({mlp() + 2 * shared, 2 * d + outputs, 2 * d + gates}) + 2 * d;
  }
  // 32 bits each: two inverse roots, ...; the router's logits, the chosen ones, gates and rows.
  int64_t statistics() const { return 2 + roots + experts + 3 * chosen; }
};

BlockSizes sizes_of_latent(const ModelConfig& m) {
  const MlaConfig& a = m.mla;
  const int64_t q = m.heads * a.qk_dim(), v = m.heads * a.v_dim;
  return {.d = m.hidden,
          .f = m.ffn,
          .q = q,
          .k = q,
          .v = v,
          .o = v,
          .latents = 2 * (a.kv_latent + a.q_latent),
          .raw_latents = a.kv_latent + a.rope_dim + a.q_latent,
          .head_norms = 0,
          .roots = m.heads + 2};
}

BlockSizes sizes_of_grouped(const ModelConfig& m) {
  const int64_t hd = m.dim_of_head(), q = m.heads * hd, kv = m.kv_heads * hd;
  return {.d = m.hidden,
          .f = m.ffn,
          .q = q,
          .k = kv,
          .v = kv,
          .o = q,
          .latents = 0,
          .raw_latents = 0,
          .head_norms = m.qk_norm ? q + kv : 0,
          .roots = m.heads + (m.qk_norm ? m.heads + m.kv_heads : 0)};
}

// A prediction module's block is of the last block's kind.
BlockSizes sizes_of(const ModelConfig& m, int64_t block) {
  BlockSizes sizes = m.mla.on() ? sizes_of_latent(m) : sizes_of_grouped(m);
  if (!m.moe.sparse(std::min(block, m.layers - 1))) return sizes;
  sizes.experts = m.moe.experts;
  sizes.chosen = m.moe.chosen;
  sizes.inner = m.moe.ffn;
  sizes.shared = m.moe.shared * m.moe.ffn;
  return sizes;
}

// What each half keeps under the policy.
struct Kept {
  int64_t attention, mlp;
};
Kept kept_under(Recompute policy, const BlockSizes& b) {
  Kept kept{b.attention(), b.mlp()};
  if (policy == Recompute::swiglu) kept.mlp -= b.product();
  if (policy == Recompute::norms) {
    kept = {b.attention() - b.d - b.latents / 2, b.mlp() - b.d - b.product()};
  }
  if (policy == Recompute::attention) kept.attention -= b.core() - b.raw_latents;
  if (policy == Recompute::block) kept = {b.d, 0};
  return kept;
}

// What a region of recomputation holds, besides what ops save, until its ops are done
// (core/tape.cpp): in the mlp the product, but not yet what the norm made; in attention the fused
// q, k and v.
struct Held {
  int64_t attention, mlp;
};
Held held_under(Recompute policy, const BlockSizes& b) {
  const bool whole = policy == Recompute::block;
  const int64_t fused = b.latents > 0 ? 0 : b.q + b.k + b.v, product = b.chosen > 0 ? 0 : b.f;
  Held held{.attention = whole || policy == Recompute::attention ? fused : 0, .mlp = 0};
  // Of a sparse block the shared product, and what experts and shared mlp put out.
  if (whole) held.mlp = (b.chosen > 0 ? b.shared + 2 * b.d : product) + fused;
  if (policy == Recompute::swiglu) held.mlp = product;
  if (policy == Recompute::norms) held.mlp = product > 0 ? product - b.d : 0;
  return held;
}

// What a prediction module keeps beside its block: the embedding and what it is joined to, the sum
// and the normalised sum before the head, and the gradient that the head made in the forward pass.
int64_t module_extra(Recompute policy, const BlockSizes& b) {
  return (policy == Recompute::block ? 5 : 6) * b.d;
}

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// What one pass of attention's backward takes (core/ops/attention_backward.cpp): panels of keys and
// values as long as the row, a block of rows of each head of the group, and a block of scores.
// Where the processor multiplies pairs of bf16, a word holds two of them.
int64_t attention_workspace(const RunConfig& config, const ForecastInput& in) {
  constexpr int64_t rows = attention::block_rows, keys = attention::block_keys;
  const ModelConfig& m = config.model;
  const int64_t kv_heads = m.mla.on() ? m.heads : m.kv_heads, group = m.heads / kv_heads;
  const int64_t k = m.mla.on() ? m.mla.qk_dim() : m.dim_of_head();
  const int64_t v = m.mla.on() ? m.mla.v_dim : k;
  const bool pairs = config.train.dtype == "bf16" && has_bf16_products();
  const auto words = [&](int64_t width) {
    return round_up(pairs ? (width + 1) / 2 : width, attention::word_multiple);
  };
  const int64_t k_wide = round_up(k, attention::word_multiple);
  const int64_t v_wide = round_up(v, attention::word_multiple);
  const int64_t head = rows * (words(k) + words(v) + 2 * k_wide + 2 * v_wide + 2);
  const int64_t panel = words(k) + words(v) + 2 * k_wide + v_wide;  // of one key
  const int64_t floats = 5 * rows * keys + group * head + round_up(in.length, keys) * panel +
                         keys * std::max(words(k), words(v));
  const int64_t passes = std::min<int64_t>(in.threads, in.sequences * kv_heads);
  return passes * floats * 4;
}

// Figures of the routers, a few for each expert and sequence.
int64_t routing_bytes(const ModelConfig& m, int64_t sequences) {
  return m.moe.on() ? (m.layers + m.mtp.depth) * (sequences + 8) * m.moe.experts * 8 : 0;
}

// Of a weight's gradient, where core/matmul.cpp makes it of panels.
int64_t weight_product_bytes(const RunConfig& config, const Device& device,
                             const PanelSizes& sizes) {
  const Dtype dtype = dtype_from_name(config.train.dtype);
  const bool elsewhere = dtype == Dtype::f32 && instruction_set().starts_with("avx512");
  return elsewhere && !config.train.exact ? 0 : panel_product_bytes(device, sizes, dtype);
}

// A chunk of logits (core/ops/head_loss.cpp), the packed operands of the product at work and, in
// exact mode, the weight gradient by itself.
int64_t head_workspace(const RunConfig& config, const Device& device, int64_t tokens) {
  const Dtype dtype = dtype_from_name(config.train.dtype);
  const int64_t v = config.model.vocabulary, d = config.model.hidden;
  const int64_t rows = std::min(tokens, HeadLoss::chunk_rows({}, v, dtype));
  const int64_t stride = ((v + 15) / 16 | 1) * 16;
  const int64_t product = std::max({panel_product_bytes(device, {rows, v, d}, dtype),
                                    panel_product_bytes(device, {rows, d, v}, dtype),
                                    weight_product_bytes(config, device, {v, d, rows})});
  return rows * stride * 4 + product + (config.train.exact ? v * d * 4 : 0);
}

double tokens_of(const LoadSegment& s) {  // of a micro-batch
  return static_cast<double>(s.sequences) * static_cast<double>(s.length);
}

// In f64: sizes that a config may name overflow 64 bits.
double elements_of(const ModelConfig& model, const Chunk& chunk) {
  double elements = 0;
  for (const ParamInfo& p : parameters_of(model, chunk)) {
    double product = 1;
    for (int64_t dim : p.shape.dims()) product *= static_cast<double>(dim);
    elements += product;
  }
  return elements;
}

// Of the whole model, of which only one block of each kind is listed: a list of all the names of a
// model that cannot fit might not fit either.
double elements_of(ModelConfig model) {
  const int64_t depth = model.mtp.depth;
  int64_t blocks[2] = {}, example[2] = {};  // dense, sparse
  for (int64_t i = 0; i < model.layers; ++i) {
    const int kind = model.moe.sparse(i) ? 1 : 0;
    ++blocks[kind];
    example[kind] = i;
  }
  const Chunk ends{.first_block = 0, .last_block = 0, .embedding = true, .head = true};
  model.mtp.depth = 0;
  const double none = elements_of(model, ends);
  model.mtp.depth = 1;
  const double one = elements_of(model, ends);
  double elements = none + static_cast<double>(depth) * (one - none);
  for (int kind = 0; kind < 2; ++kind) {
    if (blocks[kind] == 0) continue;
    const Chunk block{.first_block = example[kind],
                      .last_block = example[kind] + 1,
                      .embedding = false,
                      .head = false};
    elements += static_cast<double>(blocks[kind]) * elements_of(model, block);
  }
  return elements;
}

// Bytes of one rank's weights, gradients and optimiser state, at least.
double state_bytes(const RunConfig& config, int ranks) {
  // What the other ranks of a mesh hold is not here; the ranks with most hold at least this.
  const MeshConfig& mesh = config.mesh;
  const auto holders = static_cast<double>(mesh.tp * mesh.pp * mesh.ep * mesh.etp);
  const double elements = elements_of(config.model) / holders;
  const double copies = config.train.dtype == "f32" ? 0 : 2;
  const double moment = config.optim.moments.value_or("f32") == "f32" ? 4 : 2;
  const double moments = (config.optim.optimizer == "adamw" ? 2 : 1) * moment;
  const double average = config.optim.ema_decay > 0 ? 4 : 0;
  const double share = config.parallel.zero_stage > 0 ? 1.0 / ranks : 1;
  return elements * (4 + 4 + copies + (moments + average) * share);
}

// The loader makes a rank's whole part of a step, four i32 a token; one step ahead of the loop.
double batch_bytes(const LoadSegment& s, int ranks) {
  const int64_t micro_batches = (s.micro_batches + ranks - 1) / ranks;
  return 2 * 16 * static_cast<double>(micro_batches) * tokens_of(s);
}

int64_t bucket_bytes(const RunConfig& config, const ForecastInput& in) {
  const int64_t bucket =
      std::min(in.gradient_elements * 4, static_cast<int64_t>(config.parallel.bucket_mb * 1e6));
  return bucket / in.ranks * (in.ranks - 1);
}

// Whether the watchdog compares in any step to come.
bool is_probed(const RunConfig& config, int64_t steps_done) {
  const int64_t every = config.precision.watchdog.every;
  return every > 0 && config.train.steps / every > steps_done / every;
}

MemoryForecast forecast_narrow(const RunConfig& config, const ForecastInput& in) {
  const Device device(DeviceKind::cpu, 0, in.threads);
  const Fp8Forecast f = forecast_fp8(
      config, {.sequences = in.sequences,
               .length = in.length,
               .threads = in.threads,
               .probed = is_probed(config, in.steps_done),
               .fallen = in.fallen,
               .head_workspace = head_workspace(config, device, in.sequences * in.length),
               .attention_workspace = attention_workspace(config, in)});
  return {.activations = f.activations + routing_bytes(config.model, in.sequences),
          .workspace = f.workspace,
          .communication = bucket_bytes(config, in),
          .checkpoint = in.checkpoint_bytes,
          .weight_codes = f.weight_codes};
}

// `state`: bytes of the weights and all that belongs to them.
double step_bytes(const RunConfig& config, const LoadSegment& s, const MachineShare& machine,
                  double state) {
  // One value a hidden unit and block is kept under every policy, and one block's others exist at
  // once. Where that or the weights alone are too much the forecast might overflow.
  const ModelConfig& m = config.model;
  const BlockSizes last = sizes_of(m, m.layers - 1);
  const double kept = static_cast<double>(m.hidden) * static_cast<double>(m.layers);
  const double once = static_cast<double>(last.q) + static_cast<double>(last.product());
  const double least = tokens_of(s) * 2 * (kept + once);
  if (std::max(least, state) > static_cast<double>(machine.memory_bytes)) return least;
  return static_cast<double>(forecast_memory(config, {.sequences = s.sequences,
                                                      .length = s.length,
                                                      .threads = machine.threads,
                                                      .ranks = machine.ranks})
                                 .total());
}

}  // namespace

MemoryForecast forecast_memory(const RunConfig& config, const ForecastInput& in) {
  if (config.precision.on()) return forecast_narrow(config, in);
  const int64_t tokens = in.sequences * in.length, modules = config.model.mtp.depth;
  const int64_t layers = config.model.layers + modules;
  const BlockSizes b = sizes_of(config.model, layers - 1);  // the last one
  const Dtype dtype = dtype_from_name(config.train.dtype);
  const auto width = static_cast<int64_t>(size_of(dtype));
  const Recompute policy = recompute_from_name(config.train.recompute);
  const Kept kept = kept_under(policy, b);
  const Held held = held_under(policy, b);
  // Of the blocks below the last; of a module also what it hands on to the next.
  int64_t before = modules * module_extra(policy, b) + (modules > 0 ? b.d : 0);
  int64_t statistics = b.statistics() * 4;
  for (int64_t i = 0; i + 1 < layers; ++i) {
    const BlockSizes other = sizes_of(config.model, i);
    before += kept_under(policy, other).attention + kept_under(policy, other).mlp;
    if (policy != Recompute::block) statistics += other.statistics() * 4;
  }
  const int64_t labels = (5 + 5 * modules) * 4;  // a batch: five i32 a token; roots of modules
  auto bytes = [&](int64_t values) { return tokens * (values * width + statistics + labels); };

  // Five moments compete. The head's loss: every block's values, the last norm's and its gradient.
  const Device device(DeviceKind::cpu, 0, in.threads);
  const int64_t root = tokens * 4;  // the last norm's
  const MemoryForecast head{
      .activations = bytes(before + kept.attention + kept.mlp + 4 * b.d) + root,
      .workspace = head_workspace(config, device, tokens)};
  // The gradient of the last block's mlp.
  const bool whole = policy == Recompute::block;
  const int64_t attention_then = whole ? b.attention() : kept.attention;
  const MemoryForecast mlp{.activations = bytes(before + attention_then + b.mlp_backward() +
                                                held.mlp + (whole ? b.d : 0)),
                           .workspace = 0};
  // The gradient of a dense mlp's second weight, with its rows packed: those of gate and up are to
  // come.
  MemoryForecast down = mlp;
  if (b.chosen == 0) {
    down.activations -= tokens * 2 * b.f * width;
    down.workspace = weight_product_bytes(config, device, {b.d, b.f, tokens});
  }
  // The gradient of attention: the mlp is done; gradients of q, k, v, o and the stream.
  const MemoryForecast attention{
      .activations = bytes(before + b.attention() + b.q + b.k + b.v + b.o + b.d + held.attention +
                           (whole ? b.d : 0)),
      .workspace = attention_workspace(config, in)};
  // Gradients are shared during the backward pass.
  const int64_t communication = bucket_bytes(config, in);
  // The gradient of the mlp's input: few rows take less than the packed weight.
  const MemoryForecast input{
      .activations = bytes(before + attention_then + 4 * b.d + 2 * b.f + held.attention),
      .workspace = panel_product_bytes(device, {tokens, b.d, 2 * b.f}, dtype)};
  MemoryForecast most = head;
  for (MemoryForecast other : {mlp, down, input, attention}) {
    other.communication = communication;
    if (other.total() > most.total()) most = other;
  }
  most.activations += routing_bytes(config.model, in.sequences);
  most.checkpoint = in.checkpoint_bytes;
  return most;
}

void require_memory(const RunConfig& config, const std::vector<LoadSegment>& segments,
                    const MachineShare& machine) {
  const double state = state_bytes(config, machine.ranks);
  const auto available = static_cast<double>(machine.memory_bytes);
  for (const LoadSegment& s : segments) {
    const double batches = batch_bytes(s, machine.ranks);
    LoadSegment here = s;  // of the tokens that this rank has
    here.length = std::max<int64_t>(s.length / (config.mesh.tp * config.mesh.cp), 1);
    const double step = step_bytes(config, here, machine, state);
    const double needed = machine.ranks_here * (state + batches + step);
    if (needed <= available) continue;
    const bool sharable = machine.ranks > 1 && config.parallel.zero_stage == 0;
    const char* remedy =
        sharable ? "a smaller model or parallel.zero_stage = 1" : "a smaller model";
    if (batches > std::max(state, step)) remedy = "a smaller train.batch";
    if (step >= std::max(state, batches)) {
      remedy =
          "a smaller train.micro_batch, shorter train.sequence_length or train.recompute = "
          "\"block\"";
    }
    const std::string start =
        s.from_tokens > 0 ? cat("from ", counted(s.from_tokens, "token"), " on ") : "";
    const std::string who =
        machine.ranks_here > 1 ? cat("Each of the ", machine.ranks_here, " ranks here") : "It";
    fail_usage(cat(start, "this run needs at least ", text_of_bytes(needed),
                   " here, but the machine has ", text_of_bytes(available), ". ", who, " needs ",
                   text_of_bytes(state), " for weights, gradients and moments, ",
                   text_of_bytes(batches), " for batches of ", s.micro_batches, " x ",
                   counted(s.sequences, "sequence"), " of ", counted(s.length, "token"), ", ",
                   text_of_bytes(step), " for one micro-batch; ", remedy, " needs less"));
  }
}

int64_t memory_of_machine() {
  int64_t bytes = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGE_SIZE);
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    if (std::ifstream(path) >> limit && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace shoestring
