#pragma once
// A sparse layer on one rank or on several, for the tests of expert parallelism: all experts, or
// those of a rank, run on the micro-batch of a rank.

#include <functional>
#include <map>

#include "core/fp8/experts.h"
#include "parallel/expert_exchange.h"
#include "tests/parallel/expert_case.h"

namespace shoestring::testing {

// A whole sparse layer: router, routed experts, a shared one, the losses of balance.
struct Model {
  int64_t d = 12, m = 10, experts = 8, chosen = 3, length = 6;  // two sequences a micro-batch
  Dtype dtype = Dtype::f32;
  std::string recipe = "bf16", dispatch_scales = "";
  double capacity = 0;
  bool worker = false, region = false, apart = false, probe = false;
  Recompute recompute = Recompute::none;
  // What is added to the scores of an expert while a rank's micro-batch chooses.
  std::function<double(int rank, int64_t expert)> bias = nullptr;

  int64_t tokens() const { return 2 * length; }
  MoeConfig config() const {
    return {.experts = experts,
            .chosen = chosen,
            .ffn = m,
            .shared = 1,
            .scores = "sigmoid",
            .scaling = 2.5,
            .capacity = capacity,
            .balance = {.sequence = 0.3, .switch_loss = 0.2, .z_loss = 0.05}};
  }
  std::vector<ParamInfo> parameters(const ExpertPart& part) const {
    const std::string at = "layers.0.moe.";
    std::vector<ParamInfo> all = {
        {.name = at + "router.weight", .shape = {experts, d}, .deviation = 1},
        {.name = at + "experts.gate_up.weight", .shape = {experts * 2 * m, d}, .deviation = 0.5},
        {.name = at + "experts.down.weight", .shape = {experts * d, m}, .deviation = 0.5},
        {.name = at + "shared.gate_up.weight", .shape = {2 * m, d}, .deviation = 0.5},
        {.name = at + "shared.down.weight", .shape = {d, m}, .deviation = 0.5}};
    for (ParamInfo& p : all) {
      if (is_of_experts(p)) p = part_of_experts(std::move(p), experts, part);
    }
    return all;
  }
};

// What one micro-batch gives; `shared`: the gradients of what every rank has.
struct Outcome {
  Tensor y, dx;
  std::map<std::string, Tensor> told, shared;
};

inline Tensor copy_of(const Tensor& x) {
  Tensor y(x.device(), x.shape(), x.dtype());
  std::memcpy(y.raw(), x.raw(), x.bytes());
  return y;
}

// What a part of a parameter is of a tensor with the whole one's shape.
inline Tensor part_of(const Tensor& whole, const ParamInfo& info) {
  Tensor part(whole.device(), info.shape, whole.dtype());
  const size_t element = size_of(whole.dtype());
  const auto wide = static_cast<size_t>(whole.columns()) * element;
  const auto row = static_cast<size_t>(info.shape.columns()) * element;
  const auto column = static_cast<size_t>(info.shard.first_column) * element;
  for (const RowRun& run : info.shard.rows) {
    for (int64_t i = 0; i < run.count; ++i) {
      std::memcpy(part.raw() + static_cast<size_t>(run.local + i) * row,
                  whole.raw() + static_cast<size_t>(run.global + i) * wide + column, row);
    }
  }
  return info.shard.cut() ? part : copy_of(whole);
}

// A rank's layer: all experts, or its part of them.
class Layer {
 public:
  explicit Layer(const Model& model, const ExpertPart& part = {})
      : model_(model), store_(device_, model.parameters(part), model.dtype), source_(store_) {
    store_.initialise(6);
    if (model.recipe != "bf16") {
      PrecisionConfig config;
      config.recipe = model.recipe;
      if (!model.dispatch_scales.empty()) config.dispatch_scales = model.dispatch_scales;
      plan_ = std::make_unique<Fp8Plan>(resolve(config), store_, 1);
      if (model.probe) plan_->set_probe(&probe_);
    }
    layer_ = bind_moe(model.config(), store_, "layers.0");
  }

  Outcome run(int rank, TokenExchange* exchange, Stream& stream) {
    for (int64_t e = 0; e < model_.experts; ++e) {
      layer_.bias.data<float>()[e] = model_.bias ? static_cast<float>(model_.bias(rank, e)) : 0.0f;
    }
    for (const Param& p : store_.params()) {
      const Tensor g = store_.gradient(p);
      if (!is_of_experts(p.info)) std::memset(g.raw(), 0, g.bytes());
    }
    MicroBatch micro{.sequences = 2, .length = model_.length};
    const auto tokens = static_cast<size_t>(model_.tokens());
    micro.tokens.assign(tokens, 0);
    micro.labels.assign(tokens, -1);
    micro.positions.assign(tokens, 0);
    micro.first_key.assign(tokens, 0);
    const BatchTensors batch = to_device(device_, micro);
    Tape tape(stream, source_, Tape::Mode::training);
    LayerContext context{.tape = tape,
                         .batch = batch,
                         .tokens = exchange,
                         .share = 0.25,
                         .recompute = model_.recompute,
                         .fp8 = plan_.get(),
                         .exact = true};
    const Shape shape{model_.tokens(), model_.d};
    const Value x = tape.leaf(normal_tensor(device_, shape, model_.dtype, cat("x ", rank)), true);
    const int region = model_.region ? tape.begin_region() : -1;
    const Value y = layer_.run(context, x);
    if (model_.region) {
      tape.end_region(region);
      tape.drop_region(region, {y});
    }
    tape.seed(y, normal_tensor(device_, shape, model_.dtype, cat("dy ", rank)));
    if (model_.apart) {
      tape.backward_input();
      tape.backward_weight();
    } else {
      tape.backward();
    }
    Outcome o{.y = y.tensor(), .dx = tape.take_gradient(x), .told = tape.told(), .shared = {}};
    stream.synchronize();
    for (const Param& p : store_.params()) {
      if (!is_of_experts(p.info)) o.shared[p.info.name] = copy_of(store_.gradient(p));
    }
    return o;
  }

  ParamStore& store() { return store_; }
  Device& device() { return device_; }
  const Fp8Plan* plan() const { return plan_.get(); }

 private:
  Model model_;
  Device device_{DeviceKind::cpu, 0, 1};
  ParamStore store_;
  StoreSource source_;
  std::unique_ptr<Fp8Plan> plan_;
  Fp8Probe probe_;
  MoeLayer layer_;
};

}  // namespace shoestring::testing
