#pragma once
// Whether a config may go on with a checkpoint: what is done must stay what it was, what is to come
// may change.

#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "launcher/rank_state.h"

namespace shoestring {

// Usage error that lists each key with its old and new value when another model is meant, the seed
// differs, data that was read would have been read differently (sequence length, batches, sources,
// their shares, held-out documents, attention across documents), or train.steps is below the steps
// done; data error when the stores are of another tokenizer. A store that was moved is the same.
void require_same_run(const RankState& rank, const Checkpoint& checkpoint);

// For people, after require_same_run: a line each of the first ten keys that changed, and warnings
// of changes that make the whole differ from one run without a break: another learning-rate
// schedule, another order of the text.
struct ResumeChanges {
  std::vector<std::string> lines, warnings;
};
ResumeChanges changes_since(const RankState& rank, const Checkpoint& checkpoint);

}  // namespace shoestring
