#include "parallel/expert_exchange.h"

#include "core/check.h"
#include "core/fp8/experts.h"
#include "core/ops/combine.h"
#include "core/ops/convert.h"
#include "core/tape.h"
#include "core/text.h"
#include "parallel/expert_ops.h"

namespace shoestring {
namespace {

// A part of the plan that keeps all of it alive.
std::shared_ptr<const ExpertWay> part(const std::shared_ptr<const ExpertPlan>& plan,
                                      const ExpertWay& way) {
  return {plan, &way};
}

// What this rank sends by the plan of a dispatch.
ExpertTraffic sent_by(const ExpertPlan& plan) {
  const int64_t given = rows_given(plan.choices);
  ExpertTraffic sent{.tokens = bytes_there(plan.tokens, 1) - given,
                     .choices = bytes_there(plan.choices, 1) - given,
                     .given = given};
  if (plan.choices.legs.size() < 2) return sent;
  const ExpertLeg& across = plan.choices.legs.front();
  sent.choices_across = total(across.sent) - across.sent[static_cast<size_t>(across.ranks->rank())];
  return sent;
}

// Each rank sums what its tokens' experts inside a node gave, and home sums the nodes.
Value combine_in_nodes(Tape& tape, const Value& rows, const Value& gates,
                       const std::shared_ptr<const ExpertPlan>& plan,
                       const std::optional<Fp8Encoding>& encoding) {
  const NodeSums& sums = *plan->sums;
  const Value at_relay =
      apply<ExpertReturn>(tape, {.way = part(plan, sums.inside), .encoding = encoding}, {rows});
  const Value weights = apply<ExpertGates>(tape, {.plan = plan}, {gates});
  const Value of_node = apply<Combine>(tape, {}, {at_relay, weights, Value(sums.node_rows)});
  const Value home =
      apply<ExpertReturn>(tape, {.way = part(plan, sums.across), .encoding = {}}, {of_node});
  const Tensor ones(tape.stream().device(), sums.token_rows.shape(), gates.tensor().dtype(),
                    MemoryKind::other);
  fill(tape.stream(), ones, 1);
  return apply<Combine>(tape, {}, {home, Value(ones), Value(sums.token_rows)});
}

}  // namespace

ExpertExchange::ExpertExchange(ExpertGroup group) : group_(group) { validate(group_); }

DispatchedTokens ExpertExchange::dispatch(Tape& tape, const Value& x, const Routing& routing) {
  if (routing.experts != group_.experts) {
    fail(cat("[expert_exchange] a layer of ", routing.experts, " experts meets a group for ",
             group_.experts));
  }
  latest_ = plan_experts(tape.stream(), group_, routing.ids.tensor(), routing.most_rows);
  sent_[std::string(routing.layer)] += sent_by(*latest_);
  std::optional<Fp8Encoding> encoding;
  if (routing.gate_up != nullptr && packs_input(*routing.gate_up)) {
    encoding = routing.gate_up->input();
  }
  return {.rows = apply<ExpertSend>(tape, {.plan = latest_, .encoding = encoding}, {x}),
          .offsets = Value(latest_->offsets),
          .row_of = Value(latest_->own.row_of),
          .own_offsets = Value(latest_->own.offsets),
          .sources = group_.sources(),
          .plan = latest_};
}

Value ExpertExchange::combine(Tape& tape, const Value& rows, const DispatchedTokens& sent,
                              const Routing& routing) {
  const auto plan = std::static_pointer_cast<const ExpertPlan>(sent.plan);
  std::optional<Fp8Encoding> encoding;
  if (routing.down != nullptr && packs_gradient(*routing.down)) {
    encoding = routing.down->gradient();
  }
  if (plan->sums) return combine_in_nodes(tape, rows, routing.gates, plan, encoding);
  const Value home =
      apply<ExpertReturn>(tape, {.way = part(plan, plan->choices), .encoding = encoding}, {rows});
  return apply<Combine>(tape, {}, {home, routing.gates, sent.row_of});
}

namespace {

bool is_gate_up(const ParamInfo& info) {
  return info.name.ends_with(".moe.experts.gate_up.weight");
}
bool is_down(const ParamInfo& info) { return info.name.ends_with(".moe.experts.down.weight"); }

bool is_one_of(int index, int count) { return index >= 0 && index < count; }

void check_part(const ParamInfo& info, int64_t experts, const ExpertPart& p) {
  const bool fits = is_of_experts(info) && is_one_of(p.rank, p.ranks) && experts > 0 &&
                    experts % p.ranks == 0 && info.shape[0] % experts == 0;
  if (!fits) {
    fail_usage(cat(info.name, " ", info.shape.text(), " cannot be shared out: rank ", p.rank,
                   " of ", p.ranks, " ranks, ", experts, " experts; the ranks must divide the ",
                   "experts, and these the rows"));
  }
  const int64_t width = is_down(info) ? info.shape[1] : info.shape[0] / experts / 2;
  if (is_one_of(p.slice, p.slices) && width % p.slices == 0) return;
  fail_usage(cat(info.name, " ", info.shape.text(), " of ", experts,
                 " experts cannot be cut: ", "slice ", p.slice, " of ", p.slices,
                 " slices, which must divide the ", width, " columns of an expert"));
}

}  // namespace

bool is_of_experts(const ParamInfo& info) { return is_gate_up(info) || is_down(info); }

ParamInfo part_of_experts(ParamInfo info, int64_t experts, const ExpertPart& p) {
  check_part(info, experts, p);
  if (p.ranks == 1 && p.slices == 1) return info;
  const int64_t here = experts / p.ranks, height = info.shape[0] / experts;
  const int64_t first = p.rank * here * height;
  info.shard.whole = info.shape;
  info.parts.resize(info.parts.size() / static_cast<size_t>(p.ranks));
  if (is_down(info) || p.slices == 1) {
    const int64_t width = info.shape[1] / (is_down(info) ? p.slices : 1);
    info.shard.rows = {{.local = 0, .global = first, .count = here * height}};
    info.shard.first_column = is_down(info) ? p.slice * width : 0;
    info.shape = {here * height, width};
    return info;
  }
  // Of each expert the same rows of gate and of up.
  const int64_t half = height / 2, count = half / p.slices;
  info.shard.rows = {};
  for (int64_t i = 0; i < 2 * here; ++i) {
    info.shard.rows.push_back(
        {.local = i * count, .global = first + i * half + p.slice * count, .count = count});
  }
  info.shape.set(0, 2 * here * count);
  for (int64_t& part : info.parts) part /= p.slices;
  return info;
}

}  // namespace shoestring
