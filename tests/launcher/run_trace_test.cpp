#include "launcher/run_trace.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/text.h"
#include "launcher/schedule_trace.h"
#include "parallel/comm/in_process.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/simulate.h"
#include "tests/launcher/trace_reader.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

using nlohmann::json;

TraceReader trace_of(const RunConfig& config, const TraceRange& range = {.first = 2, .last = 3}) {
  EXPECT_EQ(train(config, range), ExitCode::done);
  return TraceReader(config.run.directory + "/trace.json");
}

TraceReader trace_of_data_ranks(const ScratchFolder& folder, int64_t ranks) {
  RunConfig config = small_config(folder, cat("run", ranks));
  config.parallel.data_parallel = ranks;
  config.train.batch = 6;
  config.train.steps = 5;
  return trace_of(config);
}

TEST(RunTrace, HoldsInstructionsOpsWaitsAndBatchesOfTheSteps) {
  const ScratchFolder folder;
  const TraceReader trace = trace_of_data_ranks(folder, 1);
  const std::vector<std::string> step = {"0F0", "0B0", "0F1", "0B1", "0F2", "0B2"};
  std::vector<std::string> steps = step;
  steps.insert(steps.end(), step.begin(), step.end());
  EXPECT_EQ(trace.names(0, "compute"), steps);
  EXPECT_EQ(trace.names(0, "steps"), (std::vector<std::string>{"step 2", "step 3"}));
  const std::vector<std::string> ops = trace.names(0, "ops");
  for (const char* name :
       {"linear forward", "linear input gradient", "linear weight gradient", "attention forward",
        "attention input gradient", "head_loss forward", "rms_norm forward"}) {
    EXPECT_EQ(std::ranges::count(ops, name) > 0, true) << name;
  }
  EXPECT_EQ(std::ranges::count(ops, "update"), 2);
  EXPECT_EQ(trace.names(0, "data").at(0), "wait for batch");
}

TEST(RunTrace, HoldsEveryRanksCollectivesWithTheirBytesAndWaits) {
  const ScratchFolder folder;
  const TraceReader trace = trace_of_data_ranks(folder, 3);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(trace.names(rank, "compute"), (std::vector<std::string>{"0F0", "0B0", "0F0", "0B0"}));
    const std::vector<std::string> waits = trace.names(rank, "waits");
    EXPECT_EQ(std::ranges::count(waits, "sums of gradients"), 2) << rank;
    int64_t of_world = 0;
    for (const json& e : trace.events(rank, "communication world")) {
      EXPECT_EQ(e.at("args").at("group"), "world");
      of_world += e.at("name") == "all_reduce" && e.at("args").at("bytes") > 0;
    }
    EXPECT_GT(of_world, 0) << rank;
  }
}

// What a run does and what the simulator says that its schedule does have the same names in the
// same order on every rank, whichever ranks share the pipeline's stages.
TEST(RunTrace, AStepOfAPipelineReadsLikeTheSimulatorsTraceOfItsSchedule) {
  const ScratchFolder folder;
  for (const char* name : {"1f1b", "zb-h1", "dualpipe"}) {
    RunConfig config = small_config(folder, name);
    config.mesh.pp = 2;
    config.mesh.order = "pp-tp-cp-dp_shard-dp_replicate";
    config.parallel.data_parallel = 2;
    config.pipeline.schedule = name;
    config.train.batch = 16;
    config.train.steps = 2;
    const TraceReader run = trace_of(config, {.first = 2, .last = 2});
    const Schedule schedule = make_schedule({.name = name, .ranks = 2, .micros = 4});
    const std::string plan = folder / "plan.json";
    write_schedule_trace(schedule, simulate(schedule, {.comm = 0.1}), 0.1, plan);
    const TraceReader simulated(plan);
    for (int rank = 0; rank < 4; ++rank) {
      const int stage = rank % 2;
      EXPECT_EQ(run.names(rank, "compute"), simulated.names(stage, "compute")) << name << rank;
      const std::string ways[] = {"communication activations 0 to 1",
                                  "communication gradients 1 to 0"};
      const auto sent = run.events(rank, ways[stage]);
      EXPECT_FALSE(sent.empty()) << name << rank;
      EXPECT_EQ(sent.size(), simulated.events(stage, ways[stage]).size()) << name << rank;
      for (const json& e : sent) {
        EXPECT_EQ(e.at("name"), "exchange");
        EXPECT_EQ(e.at("args").at("bytes"), 2 * 32 * 32 * 4);  // a micro-batch's rows, in f32
      }
    }
    // What a rank waited for is what one of its instructions reads, if it waited at all.
    for (int rank = 0; rank < 4; ++rank) {
      const std::vector<std::string> computed = run.names(rank, "compute");
      for (const std::string& what : run.names(rank, "waits")) {
        const bool value = what.starts_with("input of ") || what.starts_with("gradient of ");
        if (!value) continue;
        const std::string reader = what.substr(what.rfind(' ') + 1);
        const auto reads = [&](const std::string& name) {
          return cat("&", name, "&").find(cat("&", reader, "&")) != std::string::npos;
        };
        EXPECT_EQ(std::ranges::count_if(computed, reads), 1) << what;
      }
    }
  }
}

// Rows that nothing hides keep the rank as long as they travel, and it says so.
TEST(RunTrace, OverlappedPassesTellOfRowsThatNothingHides) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 16};
  config.mesh.pp = config.mesh.ep = config.mesh.dp_shard = 2;
  config.pipeline.overlap = true;
  config.train.batch = 16;
  config.train.steps = 2;
  const TraceReader run = trace_of(config, {.first = 2, .last = 2});
  size_t told = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const std::vector<std::string> waits = run.names(rank, "waits");
    told += static_cast<size_t>(std::ranges::count(waits, "rows on their way"));
    double free = -1;
    for (const json& e : run.events(rank, "waits")) {  // one after the other
      EXPECT_GE(e.at("ts").get<double>(), free - 1e-3) << e;
      free = e.at("ts").get<double>() + e.at("dur").get<double>();
    }
  }
  EXPECT_GT(told, 0u);
}

TEST(RunTrace, WithoutARangeTheCommunicatorIsTheSame) {
  run_ranks(1, [](Communicator& world) {
    RunTrace trace({}, 0);
    EXPECT_EQ(&trace.wrap(world), &world);
    EXPECT_FALSE(trace.at_step(1, world, "unused"));
    EXPECT_EQ(trace.writer(), nullptr);
  });
}

TEST(RunTrace, TextsOfAnyLengthAreGathered) {
  run_ranks(3, [](Communicator& world) {
    const std::string own(static_cast<size_t>(world.rank()) * 1000, 'a' + char(world.rank()));
    const auto texts = gather_texts(world, own);
    ASSERT_EQ(texts.size(), 3u);
    EXPECT_EQ(texts[0], "");
    EXPECT_EQ(texts[2], std::string(2000, 'c'));
  });
}

}  // namespace
}  // namespace shoestring
