// Reduction of gradients on slow links hides behind the backward pass of a real model.

#include <gtest/gtest.h>

#include <algorithm>

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

// The median over all steps but the first, which warms up, of the slowest rank's figure.
double median(const std::vector<std::vector<StepReport>>& reports, double StepReport::*figure) {
  std::vector<double> of_steps;
  for (size_t i = 1; i < reports.size(); ++i) {
    double slowest = 0;
    for (const StepReport& report : reports[i]) slowest = std::max(slowest, report.*figure);
    of_steps.push_back(slowest);
  }
  std::sort(of_steps.begin(), of_steps.end());
  return of_steps[of_steps.size() / 2];
}

int64_t gradient_bytes(const RunConfig& config) {
  int64_t bytes = 0;
  run_ranks(1, [&](Communicator& world) {
    const RankState rank(config, world, 1);
    bytes = rank.store->elements() * static_cast<int64_t>(sizeof(float));
  });
  return bytes;
}

struct Sitting {
  double wanted, reduction, exposed;  // seconds: what the links impose, what was measured
};
Sitting measure(const RunConfig& config) {
  const double compute = median(run_steps(config, {}), &StepReport::compute_seconds);
  // The backward pass is two thirds of the computing, and links are so slow that reduction takes
  // half of it: each rank sends and receives (n - 1) / n of the gradients twice.
  const double wanted = compute * 2 / 3 / 2;
  const double bytes = 2.0 * (ranks - 1) / ranks * static_cast<double>(gradient_bytes(config));
  const auto slow = run_steps(config, LinkSpeed{.bytes_per_second = bytes / wanted});
  return {wanted, median(slow, &StepReport::reduction_seconds),
          median(slow, &StepReport::exposed_seconds)};
}

TEST(Overlap, FourFifthsOfTheReductionHideBehindTheBackwardPass) {
  const ScratchFolder folder;
  const RunConfig config = wide_config(folder);
  // Other users of the machine lengthen waits and nothing shortens them: one sitting of three that
  // nobody disturbed shows what the overlap hides.
  Sitting best = {};
  for (int sitting = 0; sitting < 3; ++sitting) {
    const Sitting s = measure(config);
    ASSERT_GE(s.reduction, 0.99 * s.wanted) << "the links were not slowed down";
    ASSERT_GT(s.exposed, 0);
    if (sitting == 0 || s.exposed / s.reduction < best.exposed / best.reduction) best = s;
    if (best.exposed <= 0.2 * best.reduction) break;
  }
  EXPECT_LE(best.exposed, 0.2 * best.reduction)
      << "exposed " << best.exposed << " s of " << best.reduction << " s";
  RecordProperty("exposed_share", cat(best.exposed / best.reduction));
}

}  // namespace
}  // namespace shoestring
