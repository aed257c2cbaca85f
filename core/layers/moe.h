#pragma once
// A sparse mixture of experts in the place of a block's mlp (DeepSeekMoE; docs/moe.md):
//
//   y = sum over the chosen e of gate_e * Expert_e(x) + Shared(x)
//
// as a router (core/ops/router_logits.h, route.h), an exchange of tokens (dispatch.h, combine.h)
// and the experts' SwiGLU mlps as grouped products (grouped_linear.h).

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/layers/mlp.h"
#include "core/layers/moe_config.h"
#include "core/ops/route.h"

namespace shoestring {

// Rows sorted by expert, and where they came from (core/ops/dispatch.h).
struct DispatchedTokens {
  Value rows;     // [R, d], or packed in FP8 (core/fp8/packed_rows.h) where the layer reads codes
  Value offsets;  // i32 [experts here * sources + 1] (core/ops/grouped_linear.h)
  Value row_of;   // i32 [T, K], for combine
  Value own_offsets;    // i32 [E + 1]: how many rows the tokens given here sent to each expert
  int64_t sources = 1;  // whose micro-batches meet in the rows
  std::shared_ptr<const void> plan = {};  // what the exchange itself remembers until combine
};

struct Routing {
  Value ids, gates;  // [T, K]; ids are -1 where a choice is dropped (core/ops/drop_choices.h)
  int64_t experts = 0;
  int64_t most_rows = 0;  // that an expert takes of the whole micro-batch; 0: any number
  // Who multiplies the rows, and whose output comes back; null: not in FP8.
  const Fp8Layer *gate_up = nullptr, *down = nullptr;
  std::string_view layer = {};  // the layer's name, for those who count
};

// The seam of expert parallelism: how tokens reach their experts and come back. `combine` gets the
// experts' outputs for the rows that `dispatch` handed out and gives [T, d].
class TokenExchange {
 public:
  virtual ~TokenExchange() = default;
  virtual DispatchedTokens dispatch(Tape& tape, const Value& x, const Routing& routing) = 0;
  virtual Value combine(Tape& tape, const Value& rows, const DispatchedTokens& sent,
                        const Routing& routing) = 0;
};

// The default: all experts are here.
class LocalExchange : public TokenExchange {
 public:
  DispatchedTokens dispatch(Tape& tape, const Value& x, const Routing& routing) override;
  Value combine(Tape& tape, const Value& rows, const DispatchedTokens& sent,
                const Routing& routing) override;
};

// The loads that the global-batch loss reads in the backward pass, by the layer's name. Whoever
// runs the step adds those of a micro-batch behind its forward pass, and goes on with copies: the
// backward pass reads what was there then, however many forward passes come between.
using ExpertLoads = std::map<std::string, std::shared_ptr<ExpertLoad>>;
// Adds to the load that the forward pass before has seen, and puts a copy of the sum in its place.
void add_load(std::shared_ptr<ExpertLoad>& load, std::span<const double> counts, double tokens);

struct MoeLayer {
  std::string name;  // of the block, "layers.3"
  int64_t experts = 0;
  Route::Attributes routing;       // its factors are the losses' coefficients
  double capacity = 0;             // in training; evaluation and generation drop nothing
  const Param* router = nullptr;   // [E, d]
  const Param* gate_up = nullptr;  // [E 2 m, d]
  const Param* down = nullptr;     // [E d, m]
  Tensor bias;                     // f32 [E], added to the scores in the choice
  // Where rows are shared out: the choice is made of all of a micro-batch's rows (the losses need
  // whole sequences, and they have a capacity together), and each rank goes on with its own. Null:
  // all rows are here.
  Boundary* gather_logits = nullptr;
  Boundary* keep_rows = nullptr;
  std::optional<MlpLayer> shared;

  // A recording tape is told three tensors: "layers.3.routing" (RouteFigures), "layers.3.offsets"
  // (i32 [E + 1], of this rank's rows that were not dropped) and "layers.3.received" (i32 [experts
  // here * sources + 1], of the rows that the experts here were given).
  // Inside a segment: ends it and goes on as "layers.3.dispatch", ".experts", ".combine" and,
  // where there is a shared expert, ".shared".
  Value run(LayerContext& context, const Value& x) const;  // [T, d] -> [T, d]

 private:
  Route::Attributes attributes(const LayerContext& context) const;
  Value run_experts(LayerContext& context, const DispatchedTokens& tokens) const;
};

// Finds the parameters below "<block>.moe." and makes the selection bias,
// "<block>.moe.router.bias", part of the store's state.
MoeLayer bind_moe(const MoeConfig& config, ParamStore& store, const std::string& block);

}  // namespace shoestring
