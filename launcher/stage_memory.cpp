#include "launcher/stage_memory.h"

#include <algorithm>

#include "core/dtype.h"
#include "core/instruction_set.h"
#include "core/ops/drop_choices.h"
#include "core/panel_product.h"
#include "launcher/block_memory.h"
#include "launcher/fp8_forecast.h"
#include "launcher/rank_state.h"
#include "parallel/data_parallel.h"

namespace shoestring {
namespace {

// Whether the watchdog compares in any step to come.
bool is_probed(const RunConfig& config, int64_t steps_done) {
  const int64_t every = config.precision.watchdog.every;
  return every > 0 && config.train.steps / every > steps_done / every;
}

// What all blocks of a rank have in common.
class Rows {
 public:
  Rows(const RunConfig& config, const ForecastInput& in)
      : config_(config),
        in_(in),
        device_(DeviceKind::cpu, 0, in.threads),
        dtype_(dtype_from_name(config.train.dtype)),
        policy_(recompute_from_name(config.train.recompute)),
        rows_(in.sequences * in.length / in.share.context / in.share.tensor) {}

  const ModelConfig& model() const { return config_.model; }
  Recompute policy() const { return policy_; }
  const Device& device() const { return device_; }
  Dtype dtype() const { return dtype_; }
  int64_t tensor() const { return in_.share.tensor; }
  int64_t rows() const { return rows_; }
  int64_t bytes(int64_t values) const {
    return rows_ * values * static_cast<int64_t>(size_of(dtype_));
  }
  BlockSizes sizes(int64_t block) const {
    const bool heads = in_.share.context_kind == ContextKind::all_to_all;
    return sizes_of_block(model(), block,
                          {.tensor = tensor(),
                           .heads = heads ? in_.share.context : 1,
                           .slices = in_.share.slices,
                           .fixed_rows = fixed_rows(),
                           .summing_nodes = in_.share.summing_nodes});
  }
  // Of experts, for each row of this rank (parallel/expert_plan.h); 0: not fixed.
  int64_t fixed_rows() const {
    const MoeConfig& m = model().moe;
    const bool travel = in_.share.experts * in_.share.slices > 1;
    if (!travel || config_.parallel.expert_rows != "fixed") return 0;
    const int64_t most = rows_of_capacity({.experts = m.experts, .capacity = m.capacity},
                                          in_.sequences * in_.length * m.chosen);
    return (m.experts * std::min(most, rows_) + rows_ - 1) / std::max<int64_t>(rows_, 1);
  }
  int64_t weight_product(const PanelSizes& sizes) const {
    return weight_product_bytes(config_, device_, sizes);
  }

 private:
  const RunConfig& config_;
  const ForecastInput& in_;
  Device device_;
  Dtype dtype_;
  Recompute policy_;
  int64_t rows_;
};

std::vector<int64_t> blocks_of(const ModelConfig& model, const Chunk& chunk) {
  std::vector<int64_t> blocks;
  for (int64_t i = chunk.first_block; i < chunk.last_block; ++i) blocks.push_back(i);
  for (int64_t k = 0; chunk.head && k < model.mtp.depth; ++k) blocks.push_back(model.layers + k);
  return blocks;
}

// A gradient that is gathered before a product reads it stands beside its own rows.
int64_t stream_gradient(const BlockSizes& b) { return b.gathered > b.d ? b.gathered + b.d : b.d; }

// Moments of the backward pass of a block, beside what those before it keep.
std::vector<PassMoment> backward_moments(const Rows& r, const BlockSizes& b,
                                         const OpWorkspaces& workspaces) {
  const bool whole = r.policy() == Recompute::block;
  const int64_t t = r.tensor(), statistics = r.rows() * b.statistics() * 4;
  const KeptValues kept = kept_under(r.policy(), b), held = held_under(r.policy(), b);
  const int64_t own = whole ? b.d : 0, stream = stream_gradient(b);
  const int64_t attention_then = whole ? b.attention() : kept.attention;
  const auto moment = [&](int64_t values, int64_t workspace) {
    return PassMoment{.activations = r.bytes(values) + statistics, .workspace = workspace};
  };
  std::vector<PassMoment> moments;
  // The gradient of the mlp's gate and up.
  const int64_t mlp = attention_then + b.mlp_backward() - b.d + stream + held.mlp + own;
  moments.push_back(moment(mlp, b.chosen > 0 ? workspaces.experts : 0));
  // The gradient of a dense mlp's second weight, with its rows packed: those of gate and up are to
  // come.
  if (b.chosen == 0) {
    moments.push_back(moment(mlp - 2 * b.f, r.weight_product({b.d, b.f / t, r.rows() * t})));
  }
  const int64_t width = b.chosen > 0 ? b.shared : b.f;  // that tensor ranks cut
  // The gradient of the mlp's input: few rows take less than the packed weight.
  moments.push_back(
      moment(attention_then + 2 * b.d + 2 * b.gathered + 2 * b.f + held.attention,
             panel_product_bytes(r.device(), {r.rows() * t, b.d, 2 * width / t}, r.dtype())));
  // The gradient of attention: the mlp is done; gradients of q, k, v, o and the stream.
  moments.push_back(moment(b.attention() + b.q + b.k + b.v + b.o + stream + held.attention + own,
                           workspaces.attention));
  return moments;
}

// The projection of prediction modules, which tensor ranks do not cut: its weight packed.
PassMoment projection_moment(const Rows& r, const BlockSizes& last, int64_t kept) {
  const PanelSizes product{r.rows(), last.d, 2 * last.d};
  return {.activations = kept, .workspace = panel_product_bytes(r.device(), product, r.dtype())};
}

StageMemory plain_stage(const RunConfig& config, const ForecastInput& in, const Chunk& chunk,
                        const OpWorkspaces& workspaces) {
  const Rows r(config, in);
  const std::vector<int64_t> blocks = blocks_of(r.model(), chunk);
  const bool whole = r.policy() == Recompute::block;
  StageMemory stage;
  const BlockSizes last = r.sizes(r.model().layers - 1);
  const int64_t modules = chunk.head ? r.model().mtp.depth : 0;
  // Of a module also what it hands on to the next.
  int64_t before = r.bytes(modules * module_extra(r.policy(), last) + (modules > 0 ? last.d : 0));
  int64_t owed = 0;
  std::vector<int64_t> keeps, owes;
  for (const int64_t i : blocks) {
    const BlockSizes b = r.sizes(i);
    const bool told = !whole || i == blocks.back();
    keeps.push_back(r.bytes(kept_under(r.policy(), b).both()) +
                    (told ? r.rows() * b.statistics() * 4 : 0));
    owes.push_back(r.bytes(b.owed()));
    owed += owes.back();
  }
  stage.owed = owed + (chunk.embedding ? r.bytes(last.d) : 0);
  int64_t above = 0;  // owed by the blocks behind
  for (const int64_t keep : keeps) before += keep;
  stage.kept = before;
  for (size_t i = blocks.size(); i-- > 0;) {
    before -= keeps[i];
    for (PassMoment m : backward_moments(r, r.sizes(blocks[i]), workspaces)) {
      m.activations += before;
      stage.backward.push_back(m);
      m.activations += above;
      stage.input.push_back(m);
    }
    above += owes[i];
  }
  stage.input.push_back({.activations = above, .workspace = 0});
  if (blocks.empty()) {
    // The gradient that came, and what is handed on.
    const int64_t gradients = before + r.bytes(2 * stream_gradient(last));
    stage.backward.push_back({.activations = gradients, .workspace = 0});
    stage.input.push_back({.activations = gradients, .workspace = 0});
  }
  const int64_t ends = r.bytes(2 * last.d), root = r.rows() * 4;
  if (chunk.head) {
    // The loss: the last sum and its norm, gathered, and the gradient of that.
    stage.forward.push_back(
        {.activations = stage.kept + r.bytes(2 * last.d + 2 * last.gathered) + root,
         .workspace = workspaces.head});
    if (modules > 0) stage.forward.push_back(projection_moment(r, last, stage.kept));
    stage.kept += ends + root;
  } else {
    stage.kept += r.bytes(last.d);                     // what leaves the stage
    const int64_t made = blocks.empty() ? last.d : 0;  // embeddings, beside what leaves
    stage.forward.push_back(
        {.activations = stage.kept + r.bytes(last.gathered + made), .workspace = 0});
  }
  return stage;
}

// Told apart for the reader alone: what is inside an op at the worst moment.
PassMoment split(int64_t bytes, int64_t workspace) {
  const int64_t inside = std::min(bytes, workspace);
  return {.activations = bytes - inside, .workspace = inside};
}

StageMemory narrow_stage(const RunConfig& config, const ForecastInput& in, const Chunk& chunk,
                         const OpWorkspaces& workspaces) {
  const Rows r(config, in);
  const Fp8Forecast f = forecast_fp8(config, {.rows = r.rows(),
                                              .tensor = in.share.tensor,
                                              .experts = in.share.experts,
                                              .slices = in.share.slices,
                                              .fixed_rows = r.fixed_rows(),
                                              .summing_nodes = in.share.summing_nodes,
                                              .chunk = chunk,
                                              .threads = in.threads,
                                              .probed = is_probed(config, in.steps_done),
                                              .fallen = in.fallen,
                                              .head_workspace = workspaces.head,
                                              .attention_workspace = workspaces.attention});
  StageMemory stage{.kept = f.kept, .owed = f.kept};
  stage.forward = {split(f.forward, chunk.head ? workspaces.head : 0)};
  stage.backward = {split(f.backward, workspaces.attention)};
  stage.input = stage.backward;
  return stage;
}

}  // namespace

StageMemory stage_memory(const RunConfig& config, const ForecastInput& in, const Chunk& chunk,
                         const OpWorkspaces& workspaces) {
  return config.precision.on() ? narrow_stage(config, in, chunk, workspaces)
                               : plain_stage(config, in, chunk, workspaces);
}

namespace {

// Parts of a sum from the others, of all rows at the embedding and the head; elsewhere rows of all
// ranks on their way as well, of the runs that are sent and made at the same time
// (parallel/row_transfers.h).
int64_t tensor_communication(const RunConfig& config, const Rows& r, int64_t ranks) {
  if (ranks == 1) return 0;
  const int64_t d = config.model.hidden, chunks = config.parallel.tensor_chunks;
  const int64_t whole = r.bytes((ranks - 1) * d);
  if (chunks == 0) return whole;
  const int64_t own = r.rows(), longest = (own + chunks - 1) / chunks;
  const int64_t places = std::min<int64_t>(2, (own + longest - 1) / longest);
  return std::max(whole, r.bytes((places * ranks + ranks - 1) * d) / own * longest);
}

}  // namespace

int64_t row_communication(const RunConfig& config, const ForecastInput& in) {
  const Rows r(config, in);
  const BlockSizes b = r.sizes(r.model().layers - 1);
  const RankShare& share = in.share;
  int64_t most = tensor_communication(config, r, share.tensor);
  if (share.context > 1 && share.context_kind == ContextKind::ring) {
    const int64_t travelling = std::min<int64_t>(2, share.context - 1) * (b.k + b.v);
    most = std::max(most, r.bytes(travelling) + r.rows() * 3 * (b.k + b.v) * 4);
  }
  if (share.context > 1 && share.context_kind == ContextKind::all_to_all) {
    most = std::max(most, r.bytes(2 * (b.q + b.k + b.v)));
  }
  const bool has_experts =
      std::any_of(share.groups.begin(), share.groups.end(),
                  [](const RankShare::Group& g) { return g.routed && !g.params.empty(); });
  if (has_experts && share.experts * share.slices > 1) {
    // Slices gather one another's rows and add up parts of all of them.
    const int64_t times = share.slices > 1 ? 2 * (1 + share.slices) : 2;
    const int64_t arriving = r.fixed_rows() > 0 ? r.fixed_rows() : r.model().moe.chosen;
    const int64_t experts = r.bytes(times * arriving * b.d);
    // Rows of one pass may be on their way to experts while another pass is in any transfer.
    most = config.pipeline.overlap ? experts + std::max(most, experts) : std::max(most, experts);
  }
  if (!share.holds_shared) return most;
  // An embedding on two ranks: half of it, from the other. Behind every micro-batch it is summed
  // beside the passes of the next ones, else behind all passes.
  const int64_t shared = share.groups[0].params[0].shape.elements() * 2;
  return reduces_each_slot(sharing_of(config)) ? most + shared : std::max(most, shared);
}

int64_t weight_product_bytes(const RunConfig& config, const Device& device,
                             const PanelSizes& sizes) {
  const Dtype dtype = dtype_from_name(config.train.dtype);
  const bool elsewhere = dtype == Dtype::f32 && instruction_set().starts_with("avx512");
  return elsewhere && !config.train.exact ? 0 : panel_product_bytes(device, sizes, dtype);
}

}  // namespace shoestring
