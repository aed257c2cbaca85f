#pragma once
// How many samples of which length each step takes: a pure function of the step, in closed form,
// for stages by tokens (sequence length, mixture) and for batch-size ramps.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace shoestring {

// From the first step that starts at or after `from_tokens` on, steps have this shape. A ramp is
// several segments that differ only in micro_batches.
struct LoadSegment {
  int64_t from_tokens = 0;           // tokens of all ranks since the start of the run
  int64_t length = 0;                // S: tokens a row
  int64_t sequences = 0;             // rows a micro-batch
  int64_t micro_batches = 0;         // of all ranks, a step
  std::vector<double> weights = {};  // of the sources; empty: those of their configs
};

struct StepShape {
  int64_t segment = 0;
  int64_t first_sample = 0;  // samples (rows) taken by all earlier steps
  int64_t first_token = 0;   // tokens taken by all earlier steps
  int64_t micro_batches = 0, sequences = 0, length = 0;
  int64_t samples() const { return micro_batches * sequences; }
  int64_t tokens() const { return samples() * length; }
};

class BatchSchedule {
 public:
  // Usage error unless there is a segment at 0, from_tokens ascends and all sizes are positive.
  explicit BatchSchedule(std::vector<LoadSegment> segments);

  StepShape at(int64_t step) const;
  const std::vector<LoadSegment>& segments() const { return segments_; }
  // First sample of a segment; segments() of them.
  int64_t first_sample(int64_t segment) const {
    return starts_[static_cast<size_t>(segment)].sample;
  }
  // The least number of steps that take at least this many tokens.
  int64_t steps_for_tokens(int64_t tokens) const;

 private:
  struct Start {
    int64_t step = 0, sample = 0, token = 0;
  };
  std::vector<LoadSegment> segments_;
  std::vector<Start> starts_;
};

}  // namespace shoestring
