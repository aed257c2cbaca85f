#pragma once
// Expert parallelism: the TokenExchange (core/layers/moe.h) of a group of ranks, each of which
// holds a run of consecutive experts. Each rank brings a micro-batch of its own; outputs, and the
// gradients of everything, are those of one rank that runs the micro-batches in the order of ranks,
// bit for bit (but for sums inside nodes, parallel/expert_plan.h). The gradients of the experts'
// matrices are complete, for all tokens of the group: nothing is to be summed over it.
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

  ExpertTraffic& operator+=(const ExpertTraffic& other) {
    tokens += other.tokens;
    choices += other.choices;
    choices_across += other.choices_across;
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

// Rows [begin, end) of a matrix of stacked experts that rank `rank` of `ranks` holds:
// experts.gate_up.weight [E 2 m, d] and experts.down.weight [E d, m].
struct ExpertRows {
  int64_t begin = 0, end = 0;
  friend bool operator==(const ExpertRows&, const ExpertRows&) = default;
};
bool is_of_experts(const ParamInfo& info);
ExpertRows rows_of_experts(const ParamInfo& info, int64_t experts, int rank, int ranks);

}  // namespace shoestring
