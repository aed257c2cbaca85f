// Whole runs of the trainer on meshes: the losses of one rank, whatever the axes, and checkpoints
// that one layout leaves and another takes up.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "core/text.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

RunConfig sparse_config(const ScratchFolder& folder, const std::string& run) {
  RunConfig c = sparse_text_config(folder, run);
  c.train.steps = 6;
  c.train.evaluate_every = 3;
  return c;
}

struct Layout {
  std::string name;
  std::function<void(RunConfig&)> set;
};

std::vector<Layout> layouts() {
  return {{"tensor", [](RunConfig& c) { c.mesh.tp = 2; }},
          {"context", [](RunConfig& c) { c.mesh.cp = 2; }},
          {"experts", [](RunConfig& c) { c.parallel.data_parallel = 2, c.mesh.ep = 2; }},
          {"pipeline", [](RunConfig& c) { c.mesh.pp = 2, c.pipeline.schedule = "zb-v"; }},
          {"dualpipe",
           [](RunConfig& c) {
             c.mesh.pp = 2, c.mesh.ep = 2, c.parallel.data_parallel = 2;
             c.pipeline.schedule = "dualpipe";
             c.parallel.zero_stage = 1;
           }},
          {"gradients shared out",
           [](RunConfig& c) {
             c.mesh.dp_shard = 2, c.mesh.dp_replicate = 2;
             c.parallel.zero_stage = 2;
           }},
          {"weights shared out",
           [](RunConfig& c) {
             c.mesh.pp = 2, c.mesh.ep = 2, c.parallel.data_parallel = 2;
             c.pipeline.schedule = "dualpipev", c.pipeline.overlap = true;
             c.parallel.zero_stage = 3;
           }},
          {"weights of both directions shared out",
           [](RunConfig& c) {
             c.mesh.pp = 2, c.parallel.data_parallel = 2;
             c.pipeline.schedule = "dualpipe";
             c.parallel.zero_stage = 3;
           }},
          {"slices of experts", [](RunConfig& c) { c.parallel.data_parallel = 2, c.mesh.etp = 2; }},
          {"slices of experts on all axes",
           [](RunConfig& c) {
             c.mesh.tp = 2, c.mesh.pp = 2, c.mesh.ep = 2, c.mesh.etp = 2;
             c.parallel.data_parallel = 2;
             c.pipeline.schedule = "dualpipe";
             c.parallel.zero_stage = 1;
           }},
          {"all", [](RunConfig& c) {
             c.mesh.tp = 2, c.mesh.cp = 2, c.mesh.pp = 2, c.mesh.ep = 2;
             c.parallel.zero_stage = 1;
           }}};
}

// Updates let rounding grow; a wrong gradient shows in the first digits.
void expect_close(const RunResult& got, const RunResult& want, const std::string& what) {
  ASSERT_EQ(got.steps.size(), want.steps.size()) << what;
  for (size_t i = 0; i < want.steps.size(); ++i) {
    for (const char* key : {"loss", "gradient_norm", "moe/max_vio", "mtp/loss_1"}) {
      ASSERT_TRUE(want.steps[i].contains(key) && got.steps[i].contains(key)) << what << " " << key;
      const double x = want.steps[i].at(key).get<double>();
      EXPECT_NEAR(got.steps[i].at(key).get<double>(), x, 2e-5 * std::abs(x))
          << what << ", step " << i + 1 << " " << key;
    }
  }
}

TEST(MeshTraining, HasTheLossesOfOneRank) {
  const ScratchFolder folder;
  const RunResult one = train_small(sparse_config(folder, "one"));
  for (const Layout& layout : layouts()) {
    RunConfig config = sparse_config(folder, layout.name);
    layout.set(config);
    expect_close(train_small(config), one, layout.name);
  }
}

// A checkpoint of one layout goes on under the next one.
TEST(MeshTraining, ResumesUnderOtherLayouts) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder, "unbroken");
  const RunResult unbroken = train_small(config);
  std::vector<Layout> list = layouts();
  list.push_back({"one rank", [](RunConfig&) {}});
  config.run.directory = folder / "broken";
  for (size_t i = 0; i < 6; ++i) {
    RunConfig next = config;
    next.train.steps = static_cast<int64_t>(i) + 1;
    next.optim.schedule.total = config.optim.schedule.total;
    list[(i * 4 + 2) % list.size()].set(next);
    train_small(next);
  }
  expect_close(result_of_run(config.run.directory), unbroken, "resumed");
}

// In exact mode to the bit, whatever layout does the next step.
TEST(MeshTraining, ResumesUnderOtherLayoutsInExactModeWithTheBitsOfOneRank) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder, "exact unbroken");
  config.train.exact = true;
  const RunResult unbroken = train_small(config);
  const std::vector<Layout> list = {
      {"weights shared out",
       [](RunConfig& c) { c.parallel.data_parallel = 2, c.parallel.zero_stage = 3; }},
      {"dualpipe", layouts()[4].set},
      {"experts", layouts()[2].set},
      {"pipeline",
       [](RunConfig& c) {
         c.mesh.pp = 2, c.pipeline.schedule = "zb-v", c.mesh.dp_replicate = 2;
         c.parallel.zero_stage = 2;
       }},
      {"one rank", [](RunConfig&) {}},
      {"overlap", [](RunConfig& c) {
         c.mesh.pp = 2, c.mesh.ep = 2, c.parallel.data_parallel = 2;
         c.pipeline.schedule = "dualpipev", c.pipeline.overlap = true;
         c.parallel.zero_stage = 1, c.offload.optimizer = true;
       }}};
  config.run.directory = folder / "exact broken";
  for (size_t i = 0; i < list.size(); ++i) {
    SCOPED_TRACE(list[i].name);
    RunConfig next = config;
    next.train.steps = static_cast<int64_t>(i) + 1;
    next.optim.schedule.total = config.optim.schedule.total;
    list[i].set(next);
    train_small(next);
  }
  expect_same_run(result_of_run(config.run.directory), unbroken);
}

// The last checkpoints hold the same tensors, whole, whoever wrote them.
TEST(MeshTraining, CheckpointsOfDataRanksInExactModeAreEqual) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder, "exact1");
  config.train.exact = true;
  const RunResult one = train_small(config);
  config.parallel.data_parallel = 2;
  config.parallel.zero_stage = 1;
  config.run.directory = folder / "exact2";
  expect_same_run(train_small(config), one);
}

TEST(MeshTraining, SamplesWithTheWeightsOfAllRanks) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder, "sampling");
  config.train.sample_every = 3;
  config.train.sample_prompt = "Sir Walter";
  config.train.sample_tokens = 8;
  config.mesh.tp = 2, config.mesh.pp = 2;
  testing::internal::CaptureStdout();
  train_small(config);
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_NE(text.find("sample"), std::string::npos) << text;
}

}  // namespace
}  // namespace shoestring
