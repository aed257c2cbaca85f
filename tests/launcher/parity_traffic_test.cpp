#include "launcher/parity_traffic.h"

#include <gtest/gtest.h>

#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

TEST(ParityTraffic, NeedsTheRanks) { EXPECT_THROW(ParityTraffic().forecast(), Error); }

// What depends on the data comes from the ranks: rows that routers send on two levels, in FP8 for
// some layers, rows of prediction modules without labels, micro-batches that ranks have unevenly.
TEST(ParityTraffic, IsWhatALayoutSends) {
  const ScratchFolder folder;
  const auto expect_same = [](const RunConfig& config, const char* what) {
    const ParityStep step = run_parity_step(config);
    EXPECT_EQ(step.sent, step.formula) << what;
    EXPECT_GT(step.sent[static_cast<size_t>(Call::Op::all_to_all)], 0) << what;
  };
  RunConfig config = parity_config(folder);
  config.parallel.data_parallel = 4;
  config.mesh.ep = 4;
  config.mesh.ranks_per_node = 2;
  expect_same(config, "two levels");
  config.model.mtp.depth = 1;
  config.train.dtype = "bf16";
  config.precision.recipe = "deepseek_v3";
  config.precision.first_layers_bf16 = 2;
  config.precision.watchdog.every = 1;
  config.parallel.zero_stage = 1;
  expect_same(config, "fp8, shared state");
  config = parity_config(folder);
  config.parallel.data_parallel = 3;
  config.train.exact = true;
  expect_same(config, "uneven micro-batches");
  config = parity_config(folder);
  config.model.moe.balance.global_batch = 0.1;
  config.mesh.cp = 2;
  config.parallel.context = "all_to_all";
  config.train.recompute = "attention";
  expect_same(config, "loads");
}

}  // namespace
}  // namespace shoestring
