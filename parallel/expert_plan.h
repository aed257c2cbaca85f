#pragma once
// Which row goes where: what the ranks of an expert group agree on about one micro-batch of each,
// before any row travels. E experts, e ranks; rank r holds experts [r E/e, (r+1) E/e), or one of s
// slices of each of them. T tokens of this rank choose K experts each; d columns.
//
// At its expert a row lies behind those of lower ranks, and among its own rank's in the order of
// tokens: with ranks in the order of micro-batches that is the order in which one rank meets them.
// Rows are told apart by (expert, source rank), so that the experts' weight gradients are one
// product a micro-batch (core/ops/grouped_linear.h) and every number is that of one rank. With
// slices each of the e s ranks is a source of its own, numbered r s + its slice.
//
// One level      each choice is a row, sent straight to its expert's rank.
// Nodes          ranks a l + i, i < l, form node a. A token's row goes once to each node where it
//                has experts, to the rank with the same i, and inside the node once to each of its
//                experts (DeepSeek-V3 report, section 3.2.2). Gradients and outputs travel as one
//                row a choice on both levels, so that their sums are made at home, in the order of
//                choices: results do not depend on the number of ranks. With `sum_in_nodes` outputs
//                are summed inside the node and come back as one row a node: fewer bytes, another
//                order of summation, the same whatever the timing.
// Fixed rows     every rank sends `fixed_rows` rows to every expert, or as many as the layer's
//                capacity (core/ops/drop_choices.h) may let through of its tokens: the smaller of
//                what an expert takes of a whole micro-batch and this rank's tokens of it, since a
//                token goes to an expert once. Padded with zeros; the host waits for nothing. The
//                capacity must not let more through; what it drops has no row in own.offsets.
//                Without a capacity (evaluation) counts are exact. With f of them, on nodes a rank
//                sends each node rows for g = min(T, f E/n) tokens, or for c = min(T K, f E/n)
//                choices, and a relay sends each rank of its node n f E/e.
// Slices         the s ranks that hold slices of the same experts gather each other's rows behind
//                the last level, and add up their parts of outputs and gradients before rows go
//                home (parallel/expert_way.h)
//
// Exact counts need one wait of the host on the stream, for the numbers of rows; it is the only
// one.
//
// Bytes that rank r sends to others; w bytes a row: d size, in FP8 d + 4 ceil(d / 128):
//   counts     one level, exact or fixed: 4 (e - 1) E/e
//              nodes: 4 (n - 1) (E/n + 1) + 4 (l - 1) n E/e, and 4 a choice that leaves the node
//              (fixed: 4 (n - 1) c)
//   dispatch   one level: w for each choice of own tokens with an expert elsewhere; fixed: w
//              (e - 1) E/e fixed_rows
//              nodes: w for each (token, other node), and at the relay w for each choice of an
//              expert of another rank of this node; fixed: w ((n - 1) g + (l - 1) n f E/e)
//   combine    d size for each row that came from another rank (nodes: on both levels); fixed as
//              dispatch, on nodes with c in place of g
//   slices     counts 4 E (s - 1), gathered; dispatch w (s - 1) for each row that arrived at this
//              rank, gathered; combine d size for each row that arrived at the other slices
// The gradient of combine is a dispatch with one row a choice on all levels, in FP8 if the recipe
// says so; the gradient of dispatch is a combine.

#include <memory>
#include <optional>

#include "core/ops/dispatch.h"
#include "parallel/expert_way.h"

namespace shoestring {

// The ranks that share the experts of a layer. Communicators outlive the plans.
struct ExpertGroup {
  int64_t experts = 0;             // E, a multiple of e
  Communicator* ranks = nullptr;   // all e
  Communicator* across = nullptr;  // nodes: the ranks with this rank's place in their nodes
  Communicator* inside = nullptr;  // nodes: the ranks of this rank's node
  int64_t fixed_rows = 0;          // 0: exact counts
  bool rows_of_capacity = false;   // fixed rows, as many as the layer's capacity lets through
  bool sum_in_nodes = false;
  // The s ranks that hold slices of this rank's experts, by slice; all have the same place in
  // groups `ranks` of their own. Null: experts are whole.
  Communicator* slices = nullptr;

  int64_t experts_here() const { return experts / ranks->size(); }
  // Ranks whose tokens meet at an expert.
  int64_t sources() const;
};
// Refuses groups that do not fit, with all reasons.
void validate(const ExpertGroup& group);

// What sums inside nodes need beside the ways of rows.
struct NodeSums {
  ExpertWay inside;   // of outputs: from the relay, one row a choice, to their experts
  ExpertWay across;   // of sums: from home, one row a (node, token), to the relay
  ExpertWay gates;    // [T K, 1] at home -> [tokens here K, 1] at the relay
  Tensor node_rows;   // i32 [tokens here, K]: rows at the relay of each token that came here
  Tensor token_rows;  // i32 [T, nodes]: rows at home of each token's sums; -1 none
};

struct ExpertPlan {
  DispatchLayout own;  // of this rank's tokens, over all E experts
  Tensor offsets;      // i32 [E/e * e s + 1]: borders of the rows here, by (expert, source rank)
  ExpertWay tokens;    // from x [T, d] to the experts
  ExpertWay choices;   // from one row a choice, sorted by expert ([T K, d]), to the experts
  std::optional<NodeSums> sums;
};

// ids i32 [T, K], of this rank's tokens, -1 where a choice is dropped; most_rows: that an expert
// takes of the whole micro-batch, of which other ranks may have parts; 0: any number, and counts
// are exact. All ranks of the group call it, with fixed rows for as many tokens.
std::shared_ptr<const ExpertPlan> plan_experts(Stream& stream, const ExpertGroup& group,
                                               const Tensor& ids, int64_t most_rows);
// Everybody's counts, [s, ...] by slice, of counts [...]; without slices the counts themselves.
Tensor gather_counts(Stream& stream, const ExpertGroup& group, const Tensor& counts);
// Fails where an expert gets more rows of one rank than are fixed; 0: none are.
void check_fixed_rows(int64_t rows, int64_t fixed_rows, int64_t expert);
// The two-level form, called by plan_experts. fixed_rows: of each rank for each expert; 0: exact.
std::shared_ptr<const ExpertPlan> plan_nodes(Stream& stream, const ExpertGroup& group,
                                             const Tensor& ids, DispatchLayout own,
                                             int64_t fixed_rows);

}  // namespace shoestring
