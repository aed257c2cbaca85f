#pragma once
// Batch size as a function of the tokens seen: a few pieces of constant size, then the run's own.
// Everything is closed form, so a resume or a loader can ask for any step.

#include <cstdint>
#include <vector>

#include "optim/config.h"

namespace shoestring {

// Where the run stands before a step.
struct BatchPosition {
  int64_t tokens = 0;     // consumed before the step
  int64_t samples = 0;    // sequences consumed before the step
  int64_t sequences = 0;  // of the step
};

class BatchRamp {
 public:
  // `final_sequences`: the run's batch; `sequence_tokens`: tokens of one sequence. A piece ends
  // with the first step at or beyond its token count.
  BatchRamp(const RampConfig& config, int64_t final_sequences, int64_t sequence_tokens);

  BatchPosition at_step(int64_t step) const;
  int64_t tokens_before(int64_t step) const { return at_step(step).tokens; }
  // Smallest number of steps that consumes at least so many tokens.
  int64_t steps_for(int64_t tokens) const;

 private:
  struct Piece {
    int64_t first_step, first_token, first_sample, sequences;
  };
  std::vector<Piece> pieces_;
  int64_t sequence_tokens_;
};

}  // namespace shoestring
