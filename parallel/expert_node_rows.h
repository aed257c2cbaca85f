#pragma once
// The orders of rows on two levels (parallel/expert_plan.h), from counts that are on the device.
// Letters: n nodes, l ranks of a node, E/n experts of a node; a and b number nodes, i and j ranks
// of this node. A relay is the rank (b, i) that takes what (a, i) sends to node b. With fixed rows
// every piece of a leg - those for a node or for a rank - has as many places as NodePlaces says:
// its rows in front, in the order of exact counts, and nothing (-1) behind.

#include "core/ops/dispatch.h"
#include "parallel/expert_plan.h"

namespace shoestring {

// The most that fixed rows let travel; all 0: exact counts.
struct NodePlaces {
  int64_t rows = 0;                 // of a rank for an expert
  int64_t tokens = 0, choices = 0;  // of a rank for a node
  int64_t inside = 0;               // of a relay for a rank of its node
};
// ids [T, K] of this rank's tokens, of which all ranks have as many; fixed_rows 0: exact counts.
NodePlaces places_of(const ExpertGroup& group, const Tensor& ids, int64_t fixed_rows);

// What a rank tells the relays: for each node its choices by expert, and its tokens.
struct NodeHome {
  Tensor ids;
  DispatchLayout own;
  int64_t nodes = 0;
  NodePlaces places = {};
  Tensor heads = {};   // i32 [n, E/n + 1]: choices of each expert, then tokens
  Tensor tokens = {};  // i32 [T min(n, K)]: the tokens of each node, one node behind the other
  Tensor index = {};   // i32 [T K]: of each row sent, its token's number among those of its node
  Tensor token_rows = {};  // i32 [T, n]: the place in `tokens`, or -1
  // Fixed: the rows sent, of those at home and back, and of the choices [T K] and back.
  Tensor there = {}, back = {}, gates_there = {}, gates_back = {};
};
// Fills the tensors but ids and own.
void order_home(Stream& stream, const NodeHome& home);

// What a relay tells the ranks of its node: [j][a][experts of j], from heads [a][E/n + 1].
struct NodePass {
  Tensor heads, counts;
  int64_t ranks = 0;
};
void order_pass(Stream& stream, const NodePass& pass);

// The order in which a relay sends on: [j][expert of j][a][token], from choices [a][expert][token].
struct NodeRelay {
  Tensor heads;  // [a][E/n + 1]
  Tensor index;  // of each choice, its token's number among those of a
  int64_t chosen = 0, ranks = 0;
  NodePlaces places = {};
  Tensor there, back;                         // of choices
  Tensor tokens;                              // the row of the choice's token among all that came
  Tensor gates_there, gates_back, node_rows;  // or empty: for sums inside nodes
};
void order_relay(Stream& stream, const NodeRelay& relay);

// The order at the experts: [expert][source rank a l + i][slice], from [slice][i][expert][a].
struct NodeArrival {
  Tensor counts;  // i32 [slice][i][a][expert]
  int64_t nodes = 0, ranks = 0, slices = 1;
  NodePlaces places = {};
  Tensor there, back, offsets;
};
void order_arrival(Stream& stream, const NodeArrival& arrival);

}  // namespace shoestring
