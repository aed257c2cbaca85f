#pragma once
// Expert parallelism: the TokenExchange (core/layers/moe.h) of a group of ranks, each of which
// holds a run of consecutive experts. Each rank brings a micro-batch of its own; outputs, and the
// gradients of everything, are those of one rank that runs the micro-batches in the order of ranks,
// bit for bit (but for sums inside nodes, parallel/expert_plan.h). The gradients of the experts'
// matrices are complete, for all tokens of the group: nothing is to be summed over it.
//
// An expert may be cut further into slices of its inner width m on several ranks (the expert tensor
// axis): each holds m / s columns of gate and of up and the same ones of down's input, computes
// them for all rows of the expert, and the parts of outputs and of the rows' gradients are summed.
// These sums agree with one rank's to rounding; a slice's gradients are complete, too.
//
// In FP8, where the layer's recipe multiplies so (core/fp8/experts.h), tokens travel to the experts
// as codes made from x at home, and the gradients of outputs as codes made there; what comes back
// has the layer's type. All ranks of the group probe the same micro-batches, and have the same
// layers fall back.

#include <map>
#include <memory>
#include <string>

#include "core/layers/moe.h"
#include "core/param.h"
#include "parallel/expert_plan.h"

namespace shoestring {

// Rows that leave a rank of an expert group on the way to the experts of a block (all legs of the
// way): depends on the routing. The same rows come back.
struct ExpertTraffic {
  int64_t tokens = 0;          // as one row a (token, node); one level: a choice
  int64_t choices = 0;         // as one row a choice
  int64_t choices_across = 0;  // of these to other nodes, where counts travel on two levels
  int64_t given = 0;           // gathered by ranks with other slices, one for each of them

  ExpertTraffic& operator+=(const ExpertTraffic& other) {
    tokens += other.tokens;
    choices += other.choices;
    choices_across += other.choices_across;
    given += other.given;
    return *this;
  }
};

class ExpertExchange : public TokenExchange {
 public:
  explicit ExpertExchange(ExpertGroup group);

  DispatchedTokens dispatch(Tape& tape, const Value& x, const Routing& routing) override;
  Value combine(Tape& tape, const Value& rows, const DispatchedTokens& sent,
                const Routing& routing) override;

  const ExpertGroup& group() const { return group_; }
  // Of the latest dispatch, for those who count bytes and loads.
  const std::shared_ptr<const ExpertPlan>& latest() const { return latest_; }
  // Of all dispatches so far, by layer: what the bytes of a step depend on
  // (parallel/traffic_forecast.h). Rows that are replayed are there once.
  const std::map<std::string, ExpertTraffic>& sent() const { return sent_; }

 private:
  ExpertGroup group_;
  std::shared_ptr<const ExpertPlan> latest_;
  std::map<std::string, ExpertTraffic> sent_;
};

// What of the matrices of stacked experts, experts.gate_up.weight [E 2 m, d] and
// experts.down.weight [E d, m], a rank holds: slice `slice` of those of rank `rank`, that is
// [E/ranks 2 m/slices, d], by expert its rows of gate and of up, and [E/ranks d, m/slices].
struct ExpertPart {
  int rank = 0, ranks = 1;
  int slice = 0, slices = 1;
};
bool is_of_experts(const ParamInfo& info);
// A usage error where the ranks do not divide the experts or the slices their width.
ParamInfo part_of_experts(ParamInfo whole, int64_t experts, const ExpertPart& part);

}  // namespace shoestring
