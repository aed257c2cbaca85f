#pragma once
// How many rows expert parallelism moves for one micro-batch: what of its bytes depends on the
// routing (parallel/traffic_forecast.h has the formulas).

#include <cstdint>
#include <span>

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
// What this rank sends by the plan of a dispatch.
ExpertTraffic sent_by(const ExpertPlan& plan);
// What others sent to this rank of the group, on one level: from the "received" that a layer tells
// (core/layers/moe.h), i32 [experts here * sources + 1]. Over all ranks both have the same sum.
ExpertTraffic sent_to(std::span<const int32_t> received, const ExpertGroup& group);

}  // namespace shoestring
