// Whole runs under layouts at random: training, evaluation, samples and checkpoints of all steps
// come to their end with the losses of one rank. The seeds are printed with what fails;
// SHOESTRING_LAYOUT_SEED=N runs other ones, from N.

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/environment.h"
#include "core/text.h"
#include "launcher/mesh_layout.h"
#include "parallel/schedules/catalogue.h"
#include "tests/launcher/training_fixture.h"
#include "tests/parallel/random_mesh.h"

namespace shoestring {
namespace {

RunConfig run_config(const ScratchFolder& folder, const std::string& run) {
  RunConfig c = sparse_text_config(folder, run);
  c.model.layers = 8;
  c.train.steps = 2;
  c.train.batch = 16;
  c.train.evaluate_every = 1;
  c.train.sample_every = 2;
  c.train.sample_prompt = "Sir Walter";
  c.train.sample_tokens = 4;
  c.checkpoint.every = 1;
  c.checkpoint.deadline = 60, c.parallel.deadline = 90;
  return c;
}

RunConfig random_run(const ScratchFolder& folder, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto toss = [&random](uint64_t of) { return random() % of == 0; };
  while (true) {
    RunConfig c = run_config(folder, cat("run ", seed));
    const int64_t ranks = one_of(random, {2, 4, 4, 8});
    const std::vector<ScheduleEntry>& schedules = schedule_entries();
    c.pipeline.schedule = schedules[random() % schedules.size()].name;
    c.train.exact = toss(4);
    c.offload.optimizer = toss(3);
    c.parallel.context = toss(2) ? "ring" : "all_to_all";
    c.train.recompute =
        std::vector<std::string>{"none", "norms", "attention", "block"}[random() % 4];
    c.train.sequence_length = 32;
    c.parallel.zero_stage = one_of(random, {1, 2, 3, 3});
    std::vector<MeshConfig> legal = legal_meshes(c, ranks);
    // Most layouts have no pipeline, but most that may go wrong has to do with one.
    if (toss(2)) std::erase_if(legal, [](const MeshConfig& m) { return m.pp == 1; });
    if (legal.empty()) continue;
    c.mesh = legal[random() % legal.size()];
    const int64_t copies = c.mesh.dp_shard * c.mesh.dp_replicate * c.mesh.cp;
    if (copies == 1) c.parallel.zero_stage = 0, c.offload.optimizer = false;
    const bool pairs = c.pipeline.schedule == "1f1b" || c.pipeline.schedule.starts_with("dualpipe");
    c.pipeline.overlap = c.mesh.pp > 1 && pairs && toss(2);
    c.offload.activations = c.mesh.pp > 1 && toss(3);
    return c;
  }
}

std::string text_of(const RunConfig& c) {
  const MeshConfig& m = c.mesh;
  return cat("tp ", m.tp, " cp ", m.cp, " ep ", m.ep, " etp ", m.etp, " pp ", m.pp, " dp_shard ",
             m.dp_shard, " dp_replicate ", m.dp_replicate, ", ", c.pipeline.schedule,
             c.pipeline.overlap ? " overlap" : "", ", ZeRO ", c.parallel.zero_stage,
             c.train.exact ? ", exact" : "", c.offload.optimizer ? ", optimiser" : "",
             c.offload.activations ? ", activations" : "", ", recompute ", c.train.recompute);
}

TEST(RandomRuns, EndWithTheLossesOfOneRank) {
  const ScratchFolder folder;
  const RunResult one = train_small(run_config(folder, "one"));
  const double want = one.summary.at("validation_loss");
  const auto given = environment_variable("SHOESTRING_LAYOUT_SEED");
  const uint64_t first = given ? std::stoull(*given) : 1;
  int pipelines = 0, gathering = 0;
  for (uint64_t seed = first; seed < first + 18; ++seed) {
    const RunConfig config = random_run(folder, seed);
    SCOPED_TRACE(cat("SHOESTRING_LAYOUT_SEED=", seed, ": ", text_of(config)));
    const RunResult run = train_small(config);
    ASSERT_EQ(run.steps.size(), one.steps.size());
    for (const char* key : {"loss", "gradient_norm", "validation_loss"}) {
      const double x = one.steps.back().at(key);
      // The first update has let rounding grow; a wrong gradient shows in the first digits.
      EXPECT_NEAR(run.steps.back().at(key).get<double>(), x, 1e-4 * std::abs(x)) << key;
    }
    EXPECT_NEAR(run.summary.at("validation_loss").get<double>(), want, 2e-5 * want);
    EXPECT_EQ(run.summary.at("sample"), one.summary.at("sample"));
    EXPECT_EQ(run.tensors.size(), one.tensors.size());
    pipelines += config.mesh.pp > 1 ? 1 : 0;
    gathering += config.parallel.zero_stage == 3 ? 1 : 0;
  }
  EXPECT_GE(pipelines, 6);
  EXPECT_GE(gathering, 3);
}

}  // namespace
}  // namespace shoestring
