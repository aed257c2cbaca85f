#pragma once
// A layout's step (launcher/parity.h) beside one rank's: numbers within their limits, which
// docs/parity.md gives reasons for, bytes of the formulas, memory of the forecast.

#include <map>
#include <string>
#include <vector>

#include "launcher/parity.h"

namespace shoestring {

// Must every bit be one rank's, in the same precision? In exact mode, without tensor (tp, etp) and
// context axes.
bool must_be_equal(const RunConfig& config);
// Are the numbers measured against f64? In bf16 and FP8, where they need not be equal.
bool needs_truth(const RunConfig& config);

// How far a step in a run's precision is from the same in f64, relative: of parameters |g - g64|
// over |g64|; all: of all of them together.
struct RoundingNoise {
  double loss = 0, norm = 0, all = 0;
  std::map<std::string, double> gradients = {};
};

// What bf16 and FP8 are measured against: the step in f64 and one rank's noise. That is a draw too,
// above all in sparse models, where a few of a micro-batch's tokens lie between two experts: it is
// the largest of the config's seed, whose step is `one`, and of further ones.
struct ParityTruth {
  ParityStep step;
  RoundingNoise noise;
  int seeds = 0;
};
constexpr int least_noise_seeds = 4, most_noise_seeds = 32;
ParityTruth run_truth(const RunConfig& config, const ParityStep& one);

struct ParityResult {
  double loss = 0, norm = 0;  // relative distances
  std::string worst;          // parameter, or in f32 a router's bias
  double error = 0;           // of it: |g - g1| / |g1|; in bf16 and FP8 its distance to f64 over
                              // one rank's
  double loss_limit = 0, norm_limit = 0, error_limit = 0;
  // A line each: "all_reduce: 5120 bytes sent, 2560 by the formula".
  std::vector<std::string> bytes = {}, memory = {};
  bool numbers_met() const {
    return loss <= loss_limit && norm <= norm_limit && error <= error_limit;
  }
  bool met() const { return numbers_met() && bytes.empty() && memory.empty(); }
};

// `truth`: null where none is needed; a step that is a little outside its limits is compared again
// with the noise of twice as many seeds, up to the most. Of a config whose numbers can be compared.
ParityResult compare_steps(const RunConfig& config, const ParityStep& step, const ParityStep& one,
                           ParityTruth* truth);

}  // namespace shoestring
