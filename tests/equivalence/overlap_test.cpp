// Reduction of gradients on slow links hides behind the backward pass of a real model.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "launcher/step.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/throttled.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

constexpr int ranks = 2, steps = 7;

// About twenty buckets, so that the last one, which nothing can hide, is small.
RunConfig wide_config(const ScratchFolder& folder) {
  RunConfig c = small_config(folder);
  c.model.layers = 10;
  c.model.hidden = 192;
  c.model.ffn = 512;
  c.model.max_positions = 128;
  c.train.batch = 8;
  c.train.micro_batch = 4;
  c.train.sequence_length = 128;
  c.parallel.bucket_mb = 0.9;
  return c;
}

// Reports by step and rank; every rank computes on one thread.
std::vector<std::vector<StepReport>> run_steps(const RunConfig& config,
                                               const std::optional<LinkSpeed>& links) {
  std::vector<std::vector<StepReport>> reports(steps, std::vector<StepReport>(ranks));
  run_ranks(ranks, [&](Communicator& world) {
    const std::unique_ptr<Communicator> slow = links ? throttled(world, *links) : nullptr;
    Communicator& used = slow ? *slow : world;
    RunTrace trace({}, used.rank());
    RankState rank(config, used, 1);
    StepRunner runner(rank, trace);
    for (int64_t i = 0; i < steps; ++i) {
      reports[static_cast<size_t>(i)][static_cast<size_t>(used.rank())] =
          runner.run(rank.loader->batch(i, used.rank(), ranks));
    }
  });
  return reports;
}

// The least of all steps and ranks but the first step, which warms up. Whoever else uses the
// machine makes steps and waits longer, never shorter; and a rank that is behind its peer waits for
// links alone.
double least(const std::vector<std::vector<StepReport>>& reports, double StepReport::*figure) {
  double result = std::numeric_limits<double>::infinity();
  for (size_t i = 1; i < reports.size(); ++i) {
    for (const StepReport& report : reports[i]) result = std::min(result, report.*figure);
  }
  return result;
}

int64_t gradient_bytes(const RunConfig& config) {
  int64_t bytes = 0;
  run_ranks(1, [&](Communicator& world) {
    const RankState rank(config, world, 1);
    bytes = rank.store->elements() * static_cast<int64_t>(sizeof(float));
  });
  return bytes;
}

TEST(Overlap, FourFifthsOfTheReductionHideBehindTheBackwardPass) {
  const ScratchFolder folder;
  const RunConfig config = wide_config(folder);
  const double compute = least(run_steps(config, {}), &StepReport::compute_seconds);
  // The backward pass is two thirds of the computing, and links are so slow that reduction takes
  // half of it: each rank sends and receives (n - 1) / n of the gradients twice.
  const double reduction = compute * 2 / 3 / 2;
  const double bytes = 2.0 * (ranks - 1) / ranks * static_cast<double>(gradient_bytes(config));
  const auto slow = run_steps(config, LinkSpeed{.bytes_per_second = bytes / reduction});
  EXPECT_GE(least(slow, &StepReport::reduction_seconds), 0.99 * reduction)
      << "the links were not slowed down";
  const double exposed = least(slow, &StepReport::exposed_seconds);
  EXPECT_GT(exposed, 0);
  EXPECT_LE(exposed, 0.2 * reduction)
      << "exposed " << exposed << " s of " << reduction << " s, computing " << compute << " s";
  RecordProperty("exposed_share", cat(exposed / reduction));
}

}  // namespace
}  // namespace shoestring
