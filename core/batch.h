#pragma once
// What the loader hands to the step: token rows with everything attention and the loss need.
// B sequences (rows) of S tokens; documents are packed into rows and never attend to one another
// unless the config says so.

#include <cstdint>
#include <vector>

namespace shoestring {

// What a module of multi-token prediction reads and predicts at each token, and where the main
// model's prediction of the same token stands: its row in [0, B * S), -1 when it is not here.
struct ShiftedTokens {
  std::vector<int32_t> tokens = {}, labels = {}, main = {};  // [B, S]
};

struct MicroBatch {
  int64_t sequences = 0;                // B
  int64_t length = 0;                   // S
  std::vector<int32_t> tokens = {};     // [B, S]
  std::vector<int32_t> labels = {};     // [B, S]: the next token of the same document, -1 = none
  std::vector<int32_t> positions = {};  // [B, S]: position within the document, for RoPE
  std::vector<int32_t> first_key = {};  // [B, S]: first column of the row that this token may see
  // [B, S]: first column of the token's document; empty: first_key (attention stays inside)
  std::vector<int32_t> document_start = {};
  // Of each module; empty: made from the rows (core/layers/mtp.h). Rows that lack some columns,
  // which are on other ranks, bring them along; their first_key and document_start are columns of
  // the whole row.
  std::vector<ShiftedTokens> shifted = {};
  std::vector<uint64_t> sample_ids = {};  // [B]: global sample number of each row, for messages
  std::vector<int32_t> sources = {};      // [B]: which source of the mixture the row came from
  int64_t valid_labels = 0;               // labels that are not -1
};

// One rank's part of one step. The step's loss is a mean over global_valid_labels, which every rank
// knows before it starts: gradients are seeded with 1 / global_valid_labels and only ever summed.
struct Batch {
  int64_t step = 0;
  int64_t global_micro_batches = 0;  // of all data-parallel ranks
  int64_t global_valid_labels = 0;
  int64_t global_tokens = 0;                 // B * S of all micro-batches of all ranks
  std::vector<int64_t> global_indices = {};  // of this rank's micro-batches, ascending
  std::vector<MicroBatch> micro = {};        // same length as global_indices
};

}  // namespace shoestring
