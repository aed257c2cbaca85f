#pragma once
// What the pieces of a pipeline cost on this machine, measured, and the split of blocks by that.

#include <string>
#include <vector>

#include "launcher/run_config.h"
#include "parallel/balanced_split.h"
#include "parallel/instruction.h"

namespace shoestring {

// Seconds of the forward and the backward pass of one micro-batch of the config's first stage of
// training, on one rank of `threads` cores, as medians of `rounds`: of the embedding, of one block
// of each kind (dense and sparse ones; the others of a kind cost as much), and of the head with its
// loss and prediction modules. No axis of the mesh takes part: those that cut blocks cut the head
// as well. The config has its vocabulary.
struct PieceTimes {
  double embedding = 0, dense = 0, sparse = 0, head = 0;  // 0: the model has none
  // How far the middle half of a piece's rounds are apart, of the median.
  struct Spread {
    double embedding = 0, dense = 0, sparse = 0, head = 0;
  } spread = {};
};
PieceTimes measure_pieces(const RunConfig& config, int threads, int rounds = 3);

// Usage error where the measurement would take more memory than that: the pieces' weights, masters
// and gradients, and a micro-batch's passes through all of them. To be asked before it: what a rank
// of the run holds may be far less (axes that cut blocks), or more.
void require_memory_to_measure(const RunConfig& config, int threads, int64_t memory_bytes);

// What a person should know of the spread where it is above a tenth, as on a busy machine, with the
// pieces that have it; empty: it is not.
std::string text_of_noise(const PieceTimes& times);

PieceCosts costs_of(const ModelConfig& model, const PieceTimes& times);

// The pieces that the config's schedule cuts the model into.
int pipeline_stages(const RunConfig& config);

// "blocks by measured cost: 3 + 3 + 2 (...)": the split and what its dearest stage costs.
std::string text_of_split(const PieceCosts& costs, const std::vector<int64_t>& blocks);

}  // namespace shoestring
