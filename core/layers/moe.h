#pragma once
// A sparse mixture of experts in the place of a block's mlp (DeepSeekMoE; docs/moe.md):
//
//   y = sum over the chosen e of gate_e * Expert_e(x) + Shared(x)
//
// as a router (core/ops/router_logits.h, route.h), an exchange of tokens (dispatch.h, combine.h)
// and the experts' SwiGLU mlps as grouped products (grouped_linear.h).

#include <map>
#include <optional>
#include <string>

#include "core/layers/mlp.h"
#include "core/layers/moe_config.h"
#include "core/ops/route.h"

namespace shoestring {

// Rows sorted by expert, and where they came from (core/ops/dispatch.h).
struct DispatchedTokens {
  Value rows;     // [R, d]
  Value offsets;  // i32 [experts here + 1]
  Value row_of;   // i32 [T, K]
};

struct Routing {
  Value ids, gates;  // [T, K]
  int64_t experts = 0;
  double capacity = 0;
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
// runs the step brings them up to date between forward and backward.
using ExpertLoads = std::map<std::string, ExpertLoad>;

struct MoeLayer {
  std::string name;  // of the block, "layers.3"
  int64_t experts = 0;
  Route::Attributes routing;       // its factors are the losses' coefficients
  double capacity = 0;             // in training; evaluation and generation drop nothing
  const Param* router = nullptr;   // [E, d]
  const Param* gate_up = nullptr;  // [E 2 m, d]
  const Param* down = nullptr;     // [E d, m]
  Tensor bias;                     // f32 [E], added to the scores in the choice
  std::optional<MlpLayer> shared;

  // A recording tape is told two tensors: "layers.3.routing" (RouteFigures) and "layers.3.offsets"
  // (i32 [E + 1], of the rows that were not dropped).
  Value run(LayerContext& context, const Value& x) const;  // [T, d] -> [T, d]

 private:
  Route::Attributes attributes(const LayerContext& context) const;
  Value run_experts(LayerContext& context, const DispatchedTokens& tokens) const;
};

// Finds the parameters below "<block>.moe." and makes the selection bias,
// "<block>.moe.router.bias", part of the store's state.
MoeLayer bind_moe(const MoeConfig& config, ParamStore& store, const std::string& block);

}  // namespace shoestring
