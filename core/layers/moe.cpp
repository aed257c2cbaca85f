#include "core/layers/moe.h"

#include <utility>

#include "core/ops/add.h"
#include "core/ops/combine.h"
#include "core/ops/dispatch.h"
#include "core/ops/drop_choices.h"
#include "core/ops/fp8_grouped_linear.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/router_logits.h"
#include "core/ops/swiglu.h"
#include "core/text.h"

namespace shoestring {
namespace {

// All experts' rows times their matrices, in FP8 where the plan says so.
Value multiply(LayerContext& context, const Param* weight, const Value& rows,
               const DispatchedTokens& tokens) {
  Tape& tape = context.tape;
  if (Fp8Layer* layer = fp8_layer(context, *weight)) {
    return apply<Fp8GroupedLinear>(tape, {.layer = layer, .sources = tokens.sources},
                                   {rows, tokens.offsets}, {weight});
  }
  return apply<GroupedLinear>(tape, {.thin = !tape.recording(), .sources = tokens.sources},
                              {rows, tokens.offsets}, {weight});
}

// A layer by itself, outside of any segment, has none.
void cut_segment(Tape& tape, const std::string& name, std::string_view part) {
  if (!tape.in_segment()) return;
  tape.end_segment();
  tape.begin_segment(cat(name, part));
}

}  // namespace

DispatchedTokens LocalExchange::dispatch(Tape& tape, const Value& x, const Routing& routing) {
  auto [rows, offsets, row_of] =
      apply<Dispatch>(tape, {.experts = routing.experts}, {x, routing.ids});
  return {.rows = rows, .offsets = offsets, .row_of = row_of, .own_offsets = offsets};
}

Value LocalExchange::combine(Tape& tape, const Value& rows, const DispatchedTokens& sent,
                             const Routing& routing) {
  return apply<Combine>(tape, {}, {rows, routing.gates, sent.row_of});
}

void add_load(std::shared_ptr<ExpertLoad>& load, std::span<const double> counts, double tokens) {
  if (!load) load = std::make_shared<ExpertLoad>();
  load->counts.resize(counts.size());
  for (size_t e = 0; e < counts.size(); ++e) load->counts[e] += counts[e];
  load->tokens += tokens;
  load = std::make_shared<ExpertLoad>(*load);
}

Route::Attributes MoeLayer::attributes(const LayerContext& context) const {
  Route::Attributes a = routing;
  a.sequences = context.batch.sequences;
  for (double* factor : {&a.sequence_factor, &a.micro_factor, &a.global_factor, &a.z_factor}) {
    *factor *= context.share;
  }
  if (context.loads) {
    std::shared_ptr<ExpertLoad>& load = (*context.loads)[name];
    if (!load) load = std::make_shared<ExpertLoad>();
    a.load = load;
  }
  return a;
}

Value MoeLayer::run_experts(LayerContext& context, const DispatchedTokens& tokens) const {
  Tape& tape = context.tape;
  const Value fused = multiply(context, gate_up, tokens.rows, tokens);
  Fp8Layer* narrow = fp8_layer(context, *down);
  if (narrow != nullptr && narrow->recipe().swiglu_inputs) {
    return apply<Fp8GroupedLinear>(tape,
                                   {.layer = narrow, .swiglu = true, .sources = tokens.sources},
                                   {fused, tokens.offsets}, {down});
  }
  const bool region =
      context.recompute == Recompute::swiglu || context.recompute == Recompute::norms;
  const int id = region ? tape.begin_region() : -1;
  const Value product = apply<Swiglu>(tape, {}, {fused});
  if (region) tape.end_region(id);
  Value y = multiply(context, down, product, tokens);
  if (region) tape.drop_region(id, {});
  return y;
}

Value MoeLayer::run(LayerContext& context, const Value& x) const {
  Tape& tape = context.tape;
  Value logits = apply<RouterLogits>(tape, {.exact = context.exact}, {x}, {router});
  if (gather_logits) logits = gather_logits->cross(tape, logits);
  auto [ids, gates, figures] = apply<Route>(tape, attributes(context), {logits, Value(bias)});
  int64_t most_rows = 0;
  if (tape.recording() && capacity > 0) {
    const DropChoices::Attributes limit{.experts = experts, .capacity = capacity};
    most_rows = rows_of_capacity(limit, ids.tensor().elements());
    ids = apply<DropChoices>(tape, limit, {ids, gates});
  }
  if (keep_rows) {
    ids = keep_rows->cross(tape, ids);
    gates = keep_rows->cross(tape, gates);
  }
  const Routing chosen{.ids = ids,
                       .gates = gates,
                       .experts = experts,
                       .most_rows = most_rows,
                       .gate_up = fp8_layer(context, *gate_up),
                       .down = fp8_layer(context, *down),
                       .layer = name};
  LocalExchange local;
  TokenExchange& exchange = context.tokens ? *context.tokens : local;
  cut_segment(tape, name, ".dispatch");
  const DispatchedTokens sent = exchange.dispatch(tape, x, chosen);
  cut_segment(tape, name, ".experts");
  Value rows = run_experts(context, sent);
  cut_segment(tape, name, ".combine");
  Value y = exchange.combine(tape, std::exchange(rows, {}), sent, chosen);
  if (tape.recording()) {
    tape.tell(cat(name, ".routing"), figures.tensor());
    tape.tell(cat(name, ".offsets"), sent.own_offsets.tensor());
    tape.tell(cat(name, ".received"), sent.offsets.tensor());
  }
  if (!shared) return y;
  cut_segment(tape, name, ".shared");
  return apply<Add>(tape, {}, {y, shared->run(context, x)});
}

MoeLayer bind_moe(const MoeConfig& config, ParamStore& store, const std::string& block) {
  const std::string at = cat(block, ".moe.");
  const BalanceConfig& balance = config.balance;
  MoeLayer layer{.name = block,
                 .experts = config.experts,
                 .routing = {.chosen = config.chosen,
                             .groups = config.groups,
                             .groups_chosen = config.groups_chosen,
                             .sigmoid = config.scores == "sigmoid",
                             .best_of_group = config.group_score == "max",
                             .renormalise = config.renormalise,
                             .scaling = config.scaling,
                             .sequence_factor = balance.sequence,
                             .micro_factor = balance.switch_loss,
                             .global_factor = balance.global_batch,
                             .z_factor = balance.z_loss},
                 .capacity = config.capacity,
                 .router = &store.param(at + "router.weight"),
                 .gate_up = &store.param(at + "experts.gate_up.weight"),
                 .down = &store.param(at + "experts.down.weight"),
                 .bias = store.state(at + "router.bias", {config.experts}),
                 .shared = {}};
  if (config.shared > 0) {
    layer.shared = MlpLayer{.gate_up = {.weight = &store.param(at + "shared.gate_up.weight")},
                            .down = {.weight = &store.param(at + "shared.down.weight")}};
  }
  return layer;
}

}  // namespace shoestring
