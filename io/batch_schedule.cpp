#include "io/batch_schedule.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"

namespace shoestring {
namespace {

int64_t samples_a_step(const LoadSegment& s) { return s.micro_batches * s.sequences; }
int64_t tokens_a_step(const LoadSegment& s) { return samples_a_step(s) * s.length; }

int64_t ceil_div(int64_t a, int64_t b) { return a <= 0 ? 0 : (a - 1) / b + 1; }

// Up to these, a stage's begin and one step beyond it are numbers of 64 bits.
constexpr int64_t most_a_step = int64_t{1} << 40, most_before_a_stage = int64_t{1} << 62;

void check_segment(const LoadSegment& s, size_t index) {
  if (s.from_tokens > most_before_a_stage) {
    fail_usage(cat("stage ", index, " begins after ", s.from_tokens, " tokens; at most ",
                   most_before_a_stage, " can be counted"));
  }
  int64_t tokens = 1;
  for (int64_t size : {s.length, s.sequences, s.micro_batches}) {
    if (size < 1 || size > most_a_step / tokens) {
      fail_usage(cat("stage ", index, ": ",
                     counted(s.micro_batches, "micro-batch", "micro-batches"), " of ",
                     counted(s.sequences, "sequence"), " of ", counted(s.length, "token"),
                     " is no possible batch; each must be at least 1, the whole at most ",
                     most_a_step, " tokens"));
    }
    tokens *= size;
  }
}

}  // namespace

BatchSchedule::BatchSchedule(std::vector<LoadSegment> segments) : segments_(std::move(segments)) {
  if (segments_.empty() || segments_.front().from_tokens != 0) {
    fail_usage("the first stage must start at token 0");
  }
  for (size_t i = 0; i < segments_.size(); ++i) {
    check_segment(segments_[i], i);
    if (i == 0) {
      starts_.push_back({});
      continue;
    }
    const LoadSegment& before = segments_[i - 1];
    if (segments_[i].from_tokens <= before.from_tokens) {
      fail_usage(cat("stage ", i, " starts at token ", segments_[i].from_tokens,
                     ", not after the stage before it (", before.from_tokens, ")"));
    }
    const Start& from = starts_.back();
    const int64_t steps = ceil_div(segments_[i].from_tokens - from.token, tokens_a_step(before));
    starts_.push_back({.step = from.step + steps,
                       .sample = from.sample + steps * samples_a_step(before),
                       .token = from.token + steps * tokens_a_step(before)});
  }
}

StepShape BatchSchedule::at(int64_t step) const {
  if (step < 0) fail(cat("there is no step ", step));
  // The last segment that starts at or before the step: one that a step jumps over has no steps.
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), step,
                                      [](int64_t s, const Start& start) { return s < start.step; });
  const size_t i = static_cast<size_t>(after - starts_.begin()) - 1;
  const LoadSegment& segment = segments_[i];
  const int64_t steps = step - starts_[i].step;
  const int64_t most =
      (std::numeric_limits<int64_t>::max() - starts_[i].token) / tokens_a_step(segment);
  if (steps >= most) {
    fail_usage(cat("step ", step, " would begin after more than 2^63 tokens, which cannot be ",
                   "counted: a step takes ", tokens_a_step(segment),
                   " tokens; lower train.steps, train.batch or train.sequence_length"));
  }
  return {.segment = static_cast<int64_t>(i),
          .first_sample = starts_[i].sample + steps * samples_a_step(segment),
          .first_token = starts_[i].token + steps * tokens_a_step(segment),
          .micro_batches = segment.micro_batches,
          .sequences = segment.sequences,
          .length = segment.length};
}

int64_t BatchSchedule::steps_for_tokens(int64_t tokens) const {
  size_t i = segments_.size() - 1;
  while (i > 0 && starts_[i].token >= tokens) --i;
  return starts_[i].step + ceil_div(tokens - starts_[i].token, tokens_a_step(segments_[i]));
}

}  // namespace shoestring
