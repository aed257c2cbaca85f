#include "launcher/step_routing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>

#include "core/text.h"
#include "launcher/step.h"
#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

constexpr int64_t experts = 6, chosen = 2;

RunConfig sparse_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.train.batch = 10;  // five micro-batches
  config.model.layers = 3;
  config.model.moe = {.experts = experts,
                      .chosen = chosen,
                      .ffn = 16,
                      .shared = 1,
                      .first_dense = 1,
                      .scores = "sigmoid",
                      .balance = {.bias_speed = 0.01}};
  return config;
}

using Biases = std::map<std::string, std::vector<float>>;
Biases biases_of(const RankState& rank) {
  Biases biases;
  for (const ModelState& s : rank.store->states()) {
    biases[s.name].assign(s.values.span<float>().begin(), s.values.span<float>().end());
  }
  return biases;
}

struct Outcome {
  std::vector<std::map<std::string, double>> figures;  // of each step
  std::vector<Biases> biases;                          // after it
  std::vector<double> norms;
};

// Steps as the last rank saw them.
Outcome run_steps(const RunConfig& config, int ranks, int64_t steps) {
  Outcome outcome;
  run_ranks(ranks, [&](Communicator& world) {
    RunTrace trace({}, world.rank());
    RankState rank(config, world, 1);
    StepRunner runner(rank, trace);
    for (int64_t i = 0; i < steps; ++i) {
      const StepReport report =
          runner.run(rank.loader->batch(i, rank.part->data_rank(), rank.part->data_ranks()));
      if (world.rank() != ranks - 1) continue;
      outcome.figures.push_back({report.statistics.begin(), report.statistics.end()});
      outcome.biases.push_back(biases_of(rank));
      outcome.norms.push_back(report.gradient_norm);
    }
  });
  return outcome;
}

TEST(StepRouting, LoadsAreThoseOfTheWholeBatch) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  config.train.statistics_every = 1;
  const auto figures = run_steps(config, 1, 1).figures[0];
  double worst = 0;
  for (const char* block : {"layers.1", "layers.2"}) {
    double sum = 0, most = 0, least = 10;
    for (int64_t e = 0; e < experts; ++e) {
      const double load = figures.at(cat("moe/load/", block, "/", e));
      sum += load;
      most = std::max(most, load);
      least = std::min(least, load);
      // A tenth of 32 * 10 tokens' choices is a whole number of them.
      const double count = load * 32 * 10 * chosen / experts;
      EXPECT_NEAR(count, std::round(count), 1e-9);
    }
    EXPECT_NEAR(sum, experts, 1e-9);
    EXPECT_NEAR(figures.at(cat("moe/max_vio/", block)), most - 1, 1e-9);
    EXPECT_NEAR(figures.at(cat("moe/least_load/", block)), least, 1e-9);
    EXPECT_NEAR(figures.at(cat("moe/top_share/", block)), most / experts, 1e-9);
    EXPECT_EQ(figures.at(cat("moe/bias_range/", block)), 0);
    EXPECT_GT(figures.at(cat("moe/entropy/", block)), 1);
    EXPECT_LE(figures.at(cat("moe/entropy/", block)), std::log(experts) + 1e-9);
    worst = std::max(worst, most - 1);
  }
  EXPECT_NEAR(figures.at("moe/max_vio"), worst, 1e-12);
  EXPECT_FALSE(figures.contains("moe/max_vio/layers.0"));  // dense
  EXPECT_FALSE(figures.contains("moe/balance_loss"));
  EXPECT_FALSE(figures.contains("moe/dropped"));
}

TEST(StepRouting, BiasesMoveAgainstTheLoad) {
  const ScratchFolder folder;
  for (bool centred : {false, true}) {
    RunConfig config = sparse_config(folder);
    config.train.statistics_every = 1;
    config.model.moe.balance.bias_centred = centred;
    const Outcome o = run_steps(config, 1, 2);
    Biases before;
    for (size_t step = 0; step < 2; ++step) {
      for (const char* block : {"layers.1", "layers.2"}) {
        const std::string name = cat(block, ".moe.router.bias");
        std::vector<double> signs;
        double mean = 0;
        for (int64_t e = 0; e < experts; ++e) {
          const double load = o.figures[step].at(cat("moe/load/", block, "/", e));
          signs.push_back(std::abs(load - 1) < 1e-12 ? 0 : load < 1 ? 1 : -1);
          mean += signs.back() / experts;
        }
        before[name].resize(experts);
        for (size_t e = 0; e < experts; ++e) {
          const double want =
              static_cast<double>(before[name][e]) + 0.01 * (signs[e] - (centred ? mean : 0));
          EXPECT_NEAR(o.biases[step].at(name)[e], want, 1e-8) << block << " " << e;
        }
      }
      before = o.biases[step];
    }
  }
}

TEST(StepRouting, AnyNumberOfRanksMovesThemAlike) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  config.train.exact = true;
  config.model.moe.balance.sequence = 0.01;
  const Outcome one = run_steps(config, 1, 3);
  for (int ranks : {2, 3}) {
    const Outcome many = run_steps(config, ranks, 3);
    EXPECT_EQ(many.biases, one.biases) << ranks;
    EXPECT_EQ(many.norms, one.norms) << ranks;
    EXPECT_EQ(many.figures, one.figures) << ranks;
  }
}

// As at the end of DeepSeek-V3's training.
TEST(StepRouting, AStageStopsTheBiases) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  StageSection stage;
  stage.from_tokens = 2 * config.train.batch * config.train.sequence_length;
  stage.bias_speed = 0;
  config.stages = {stage};
  const Outcome o = run_steps(config, 1, 4);
  EXPECT_NE(o.biases[1], o.biases[0]);
  EXPECT_EQ(o.biases[2], o.biases[1]);
  EXPECT_EQ(o.biases[3], o.biases[1]);
}

TEST(StepRouting, ASkippedStepMovesNothing) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  config.optim.skip.window = 2;
  config.optim.skip.norm_z = 1e-9;  // whatever is above the mean of two stands out
  bool skipped = false;
  run_ranks(1, [&](Communicator& world) {
    RunTrace trace({}, 0);
    RankState rank(config, world, 1);
    StepRunner runner(rank, trace);
    for (int64_t i = 0; i < 10; ++i) {
      const Biases before = biases_of(rank);
      const StepReport report = runner.run(rank.loader->batch(i, 0, 1));
      skipped |= report.skipped;
      EXPECT_EQ(biases_of(rank) == before, report.skipped) << i;
    }
  });
  EXPECT_TRUE(skipped);
}

// Five micro-batches on two and three ranks: in the last slot some rank has none, but takes part.
TEST(StepRouting, TheGlobalBatchLossCountsTheSlotOfAllRanks) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  config.model.moe.balance = {.global_batch = 0.1};
  const Outcome one = run_steps(config, 1, 2);
  config.model.moe.balance = {};
  const Outcome without = run_steps(config, 1, 2);
  EXPECT_NE(one.norms[0], without.norms[0]);
  for (bool exact : {false, true}) {
    config.model.moe.balance = {.global_batch = 0.1};
    config.train.exact = exact;
    for (int ranks : {2, 3}) {
      const Outcome many = run_steps(config, ranks, 2);
      // The counts so far differ with the number of ranks, by what a slot holds.
      EXPECT_NEAR(many.norms[0], one.norms[0], 1e-2 * one.norms[0]);
      EXPECT_NEAR(many.figures[0].at("moe/balance_loss"), one.figures[0].at("moe/balance_loss"),
                  0.05 * one.figures[0].at("moe/balance_loss"));
    }
  }
}

// One micro-batch a rank: counts of all ranks and the mean of their P make the loss of one rank
// that has all rows in one micro-batch. Uneven routers: with even ones each rank's own counts would
// do.
TEST(StepRouting, TheGlobalBatchLossIsThatOfTheSlotsRowsTogether) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  config.model.init.hidden = 0.5;
  config.model.moe.balance = {.global_batch = 0.1};
  config.train.batch = config.train.micro_batch = 6;
  const Outcome together = run_steps(config, 1, 1);
  config.train.micro_batch = 2;
  const Outcome apart = run_steps(config, 3, 1);
  const double loss = together.figures[0].at("moe/balance_loss");
  EXPECT_NEAR(apart.figures[0].at("moe/balance_loss"), loss, 1e-4 * loss);
  EXPECT_NEAR(apart.norms[0], together.norms[0], 1e-4 * together.norms[0]);
  config.model.moe.balance = {.switch_loss = 0.1};  // counts of its own rows only
  const Outcome own = run_steps(config, 3, 1);
  EXPECT_GT(std::abs(own.figures[0].at("moe/balance_loss") - loss), 1e-2 * loss);
}

// At balance f and P are even: the sequence loss is its coefficient, the other two K times theirs.
TEST(StepRouting, TheBalanceLossIsAMeanOverTheStep) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  config.model.moe.balance = {.sequence = 1};
  EXPECT_NEAR(run_steps(config, 1, 1).figures[0].at("moe/balance_loss"), 2, 0.2);  // two layers
  config.model.moe.balance = {.switch_loss = 1};
  EXPECT_NEAR(run_steps(config, 1, 1).figures[0].at("moe/balance_loss"), 2 * chosen, 0.2);
  config.model.moe.balance = {.z_loss = 1};
  EXPECT_NEAR(run_steps(config, 1, 1).figures[0].at("moe/balance_loss"),
              2 * std::pow(std::log(experts), 2), 0.3);
}

TEST(StepRouting, CountsWhatTheCapacityDrops) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  config.model.moe.capacity = 0.5;
  const auto figures = run_steps(config, 2, 1).figures[0];
  const double dropped = figures.at("moe/dropped");
  EXPECT_GE(dropped, 2 * 0.49 * 32 * 10 * chosen - 2 * 5 * experts);
  EXPECT_LT(dropped, 2 * 32 * 10 * chosen);
  EXPECT_EQ(figures.at("moe/dropped/layers.1") + figures.at("moe/dropped/layers.2"), dropped);
}

// Ranks that share out the tokens of a micro-batch, or its experts, drop what one rank drops of it.
TEST(StepRouting, DropsTheSameOnEveryLayout) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  config.train.batch = 8;
  config.model.moe.capacity = 0.9;
  const auto one = run_steps(config, 1, 2);
  EXPECT_GT(one.figures[1].at("moe/dropped"), 0.1 * 2 * 32 * 8 * chosen);
  struct Layout {
    int64_t tp = 1, cp = 1, ep = 1, data = 1;
    std::string rows = "exact", context = "ring";
  };
  for (const Layout& layout : {Layout{.tp = 2}, Layout{.cp = 2}, Layout{.tp = 2, .cp = 2},
                               Layout{.cp = 2, .context = "all_to_all"}, Layout{.tp = 2, .ep = 2},
                               Layout{.tp = 2, .ep = 2, .rows = "fixed"},
                               Layout{.cp = 2, .ep = 2, .data = 2, .rows = "fixed"}}) {
    RunConfig other = config;
    other.mesh.tp = layout.tp, other.mesh.cp = layout.cp, other.mesh.ep = layout.ep;
    other.parallel.data_parallel = layout.data;
    other.parallel.expert_rows = layout.rows;
    other.parallel.context = layout.context;
    const auto ranks = static_cast<int>(layout.tp * layout.cp * layout.data);
    SCOPED_TRACE(cat("tp ", layout.tp, " cp ", layout.cp, " ep ", layout.ep, " ", layout.rows, " ",
                     layout.context));
    const auto got = run_steps(other, ranks, 2);
    // Behind an update, which rounds elsewhere, two gates may have changed places.
    for (const char* key : {"moe/dropped", "moe/dropped/layers.1", "moe/dropped/layers.2"}) {
      EXPECT_EQ(got.figures[0].at(key), one.figures[0].at(key)) << key;
      EXPECT_NEAR(got.figures[1].at(key), one.figures[1].at(key), 2) << key;
    }
    EXPECT_NEAR(got.norms[0], one.norms[0], 1e-6 * one.norms[0]);
  }
}

}  // namespace
}  // namespace shoestring
