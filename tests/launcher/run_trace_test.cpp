#include "launcher/run_trace.h"

#include <gtest/gtest.h>

#include <set>

#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

using nlohmann::json;

json trace_of(const ScratchFolder& folder, int64_t ranks) {
  RunConfig config = small_config(folder, cat("run", ranks));
  config.parallel.data_parallel = ranks;
  config.train.batch = 6;
  config.train.steps = 5;
  EXPECT_EQ(train(config, {.first = 2, .last = 3}), ExitCode::done);
  return json::parse(read_file(config.run.directory + "/trace.json"));
}

std::set<std::string> names_in_lane(const json& trace, int rank, const std::string& lane) {
  std::set<std::string> names;
  int thread = -1;
  for (const json& e : trace.at("traceEvents")) {
    if (e.at("pid") == rank && e.at("name") == "thread_name" && e.at("args").at("name") == lane) {
      thread = e.at("tid");
    }
  }
  for (const json& e : trace.at("traceEvents")) {
    if (e.at("ph") == "X" && e.at("pid") == rank && e.at("tid") == thread) {
      names.insert(e.at("name").get<std::string>());
      EXPECT_GE(e.at("dur").get<double>(), 0);
    }
  }
  return names;
}

TEST(RunTrace, HoldsOpsWaitsAndBatchesOfTheSteps) {
  const ScratchFolder folder;
  const json trace = trace_of(folder, 1);
  const std::set<std::string> ops = names_in_lane(trace, 0, "compute");
  for (const char* name :
       {"forward 0", "backward 1", "update", "wait for gradients", "linear forward",
        "linear input gradient", "linear weight gradient", "attention forward",
        "attention input gradient", "head_loss forward", "rms_norm forward"}) {
    EXPECT_TRUE(ops.contains(name)) << name;
  }
  EXPECT_TRUE(names_in_lane(trace, 0, "data").contains("wait for batch"));
  int64_t updates = 0;
  for (const json& e : trace.at("traceEvents")) updates += e.at("name") == "update";
  EXPECT_EQ(updates, 2);  // of steps 2 and 3
}

TEST(RunTrace, HoldsEveryRanksCollectivesWithTheirBytes) {
  const ScratchFolder folder;
  const json trace = trace_of(folder, 3);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(names_in_lane(trace, rank, "compute").contains("linear forward")) << rank;
    EXPECT_TRUE(names_in_lane(trace, rank, "communication").contains("all_reduce")) << rank;
  }
  bool bytes = false;
  for (const json& e : trace.at("traceEvents")) {
    bytes |= e.contains("args") && e.at("args").contains("detail") &&
             e.at("args").at("detail").get<std::string>().find(" bytes sent") != std::string::npos;
  }
  EXPECT_TRUE(bytes);
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
