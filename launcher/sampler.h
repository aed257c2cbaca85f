#pragma once
// Choosing the next token from logits: penalty, temperature, then the three cuts, then a draw.

#include <cstdint>
#include <span>
#include <vector>

#include "core/fields.h"
#include "core/random.h"

namespace shoestring {

struct SamplerOptions {
  double temperature = 0.8;       // 0: always the likeliest token
  int64_t top_k = 0;              // 0: all
  double top_p = 1;               // smallest set whose probability reaches this
  double min_p = 0;               // drop tokens below this share of the likeliest one's probability
  double repetition_penalty = 1;  // divides positive, multiplies negative logits of seen tokens
  uint64_t seed = 1;
};

class Sampler {
 public:
  // `sequence` tells apart the random numbers of prompts generated side by side.
  Sampler(const SamplerOptions& options, uint64_t sequence);
  // The chosen id; `seen` are the tokens so far (prompt included). Deterministic in (seed,
  // sequence, number of calls). Ties go to the smaller id.
  int32_t next(std::span<const float> logits, std::span<const int32_t> seen);

 private:
  SamplerOptions options_;
  RandomStream random_;
  uint64_t draws_ = 0;
};

}  // namespace shoestring
