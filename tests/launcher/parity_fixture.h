#pragma once
// A small model with everything that layouts treat apart, and a layout of it beside one rank.

#include <gtest/gtest.h>

#include <string>

#include "core/text.h"
#include "launcher/parity_compare.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {

inline RunConfig parity_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.train.batch = 8, config.train.micro_batch = 1;
  config.model.layers = 4;
  config.model.tied_embeddings = true;
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 16, .shared = 1, .first_dense = 1};
  config.model.moe.scores = "sigmoid";
  config.model.moe.balance.sequence = 0.1;
  return config;
}

inline ParityResult parity_of(const RunConfig& config, const WrapWorld& wrap = nullptr) {
  const ParityStep one = run_parity_step(on_one_rank(config));
  const ParityStep step = run_parity_step(config, wrap);
  if (!needs_truth(config)) return compare_steps(config, step, one, nullptr);
  ParityTruth truth = run_truth(config, one);
  return compare_steps(config, step, one, &truth);
}

inline std::string text_of(const ParityResult& r) {
  std::string text = cat(r.worst, " ", r.error, ", loss ", r.loss, ", norm ", r.norm);
  for (const auto* misses : {&r.bytes, &r.memory}) {
    for (const std::string& miss : *misses) append(text, "; ", miss);
  }
  return text;
}

}  // namespace shoestring
