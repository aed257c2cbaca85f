#include "optim/ramp.h"

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

BatchRamp::BatchRamp(const RampConfig& config, int64_t final_sequences, int64_t sequence_tokens)
    : sequence_tokens_(sequence_tokens) {
  if (final_sequences < 1 || sequence_tokens < 1) {
    fail_usage(
        cat("a batch of ", final_sequences, " sequences of ", sequence_tokens, " tokens is empty"));
  }
  check(config.tokens.size() == config.sequences.size(), "optim.ramp: lists differ in length");
  Piece piece{0, 0, 0, 0};
  for (size_t i = 0; i < config.tokens.size(); ++i) {
    const int64_t missing = config.tokens[i] - piece.first_token;
    if (missing <= 0) continue;  // the step before already passed this count
    piece.sequences = config.sequences[i];
    if (piece.sequences < 1) {
      fail_usage(cat("optim.ramp.sequences: a batch of ", piece.sequences, " is empty"));
    }
    pieces_.push_back(piece);
    const int64_t step_tokens = piece.sequences * sequence_tokens;
    const int64_t steps = (missing + step_tokens - 1) / step_tokens;
    piece.first_step += steps;
    piece.first_token += steps * step_tokens;
    piece.first_sample += steps * piece.sequences;
  }
  piece.sequences = final_sequences;
  pieces_.push_back(piece);
}

BatchPosition BatchRamp::at_step(int64_t step) const {
  check(step >= 0, "a step number is negative");
  size_t i = pieces_.size() - 1;
  while (pieces_[i].first_step > step) --i;
  const Piece& piece = pieces_[i];
  const int64_t samples = (step - piece.first_step) * piece.sequences;
  return {.tokens = piece.first_token + samples * sequence_tokens_,
          .samples = piece.first_sample + samples,
          .sequences = piece.sequences};
}

int64_t BatchRamp::steps_for(int64_t tokens) const {
  if (tokens <= 0) return 0;
  size_t i = pieces_.size() - 1;
  while (pieces_[i].first_token >= tokens) --i;
  const int64_t step_tokens = pieces_[i].sequences * sequence_tokens_;
  return pieces_[i].first_step + (tokens - pieces_[i].first_token + step_tokens - 1) / step_tokens;
}

}  // namespace shoestring
