#pragma once
// Between a rank's state and checkpoints: which pieces are saved, and how any number of ranks takes
// them back.

#include <string>

#include "io/checkpoint.h"
#include "launcher/rank_state.h"
#include "launcher/saved_state.h"

namespace shoestring {

// Masters and the model's other state under their names ("model/layers.0..."), optimiser state
// under "optim/<kind>/<parameter>", small facts (step, updates, guard, time) as JSON.
CheckpointContent content_of(const RankState& rank, const SavedShare& share);

// Of the rank's mesh: with sharded state every rank saves what it owns; without, the first of those
// that hold the same.
SavedShare share_of(const RankState& rank);
inline CheckpointContent content_of(const RankState& rank) {
  return content_of(rank, share_of(rank));
}

CheckpointOptions checkpoint_options(const RankState& rank);

// Puts weights, optimiser state and facts back, bit for bit, whatever the ranks and the layout that
// saved them: each rank reads the masters and the state that it owns, then the owners publish the
// weights. The checkpoint is verified and compared with the model before anything changes: a data
// error lists the parameters that differ.
void restore(RankState& rank, const Checkpoint& checkpoint, const SavedShare& share);
inline void restore(RankState& rank, const Checkpoint& checkpoint) {
  restore(rank, checkpoint, share_of(rank));
}

// The hash of the tokenizer that the run's stores were packed with; empty where the checkpoint does
// not say.
std::string tokenizer_hash_of(const Checkpoint& checkpoint);
// Data error, with both hashes and what they belong to, unless they are equal: with other ids the
// weights mean nothing. A checkpoint that does not say (`trained` is empty) passes.
struct TokenizerPair {
  std::string checkpoint, trained;  // a path, and its tokenizer_hash_of
  std::string other, hash;          // "PATH" or "the one of PATH", and its hash
  std::string remedy;               // ends the message
};
void require_same_tokenizer(const TokenizerPair& pair);

// The weight average of a run that keeps one, in place of the weights: what its evaluations
// measure.
void restore_average(ParamStore& store, const Checkpoint& checkpoint);

}  // namespace shoestring
