// Options that cost or save memory and time change no bit of the training.

#include <gtest/gtest.h>

#include <functional>

#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

struct Case {
  const char* name;
  std::function<void(RunConfig&)> change;
  int64_t ranks = 1;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> cases() {
  return {
      {"recompute_swiglu", [](RunConfig& c) { c.train.recompute = "swiglu"; }},
      {"recompute_norms", [](RunConfig& c) { c.train.recompute = "norms"; }},
      {"recompute_attention", [](RunConfig& c) { c.train.recompute = "attention"; }},
      {"recompute_block", [](RunConfig& c) { c.train.recompute = "block"; }},
      {"saving_often_in_the_background", [](RunConfig& c) { c.checkpoint.every = 1; }},
      {"saving_often_in_the_foreground",
       [](RunConfig& c) {
         c.checkpoint.every = 1;
         c.checkpoint.background = false;
       }},
      {"saving_above_the_memory_limit",
       [](RunConfig& c) {
         c.checkpoint.every = 1;
         c.checkpoint.memory_limit_gb = 1e-4;
       }},
      {"evaluation", [](RunConfig& c) { c.train.evaluate_every = 1; }},
      {"tiny_buckets", [](RunConfig& c) { c.parallel.bucket_mb = 0.001; }, 2},
      {"one_bucket", [](RunConfig& c) { c.parallel.bucket_mb = 1000; }, 2},
  };
}

class Options : public testing::TestWithParam<Case> {};

// Averaged weights and stochastic rounding: what an evaluation exchanges must come back as it was.
TEST_P(Options, ChangeNoBit) {
  const ScratchFolder folder;
  for (const char* dtype : {"f32", "bf16"}) {
    SCOPED_TRACE(dtype);
    RunConfig config = small_config(folder, cat(dtype, "_plain"));
    config.train.dtype = dtype;
    config.train.steps = 4;
    config.optim.ema_decay = 0.9;
    config.optim.stochastic_rounding = true;
    config.parallel.data_parallel = GetParam().ranks;
    const RunResult plain = train_small(config);
    config.run.directory = folder / cat(dtype, "_changed");
    GetParam().change(config);
    expect_same_run(plain, train_small(config));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Options, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace shoestring
