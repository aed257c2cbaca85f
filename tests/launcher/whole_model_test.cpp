#include "launcher/whole_model.h"

#include <gtest/gtest.h>

#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

RunConfig sparse_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.train.batch = 8, config.train.micro_batch = 1;
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 16, .shared = 1, .first_dense = 1};
  config.model.tied_embeddings = true;
  return config;
}

std::vector<float> weights_of(const RunConfig& config, int ranks) {
  std::vector<float> all;
  run_ranks(ranks, [&](Communicator& world) {
    RankState rank(config, world, 1);
    gather_whole(rank, rank.gradients->shards().master(),
                 [&](const ParamInfo& whole, const Tensor& values) {
                   EXPECT_EQ(world.rank(), 0);
                   EXPECT_EQ(values.shape(), whole.shape);
                   all.insert(all.end(), values.span<float>().begin(), values.span<float>().end());
                 });
  });
  return all;
}

TEST(WholeModel, PartsMakeUpTheWeightsOfOneRank) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  const std::vector<float> one = weights_of(config, 1);
  config.mesh.tp = 2, config.mesh.pp = 2, config.mesh.ep = 2;
  EXPECT_EQ(weights_of(config, 4), one);
  config.pipeline.schedule = "dualpipe";
  for (const int64_t stage : {1, 2, 3}) {
    config.parallel.zero_stage = stage;
    EXPECT_EQ(weights_of(config, 8), one) << stage;
  }
}

TEST(WholeModel, RunsOnTheFirstRank) {
  const ScratchFolder folder;
  RunConfig config = sparse_config(folder);
  const auto loss_of = [&](int ranks) {
    double loss = 0;
    run_ranks(ranks, [&](Communicator& world) {
      RankState rank(config, world, 1);
      const MicroBatch micro = rank.loader->eval_micro_batch(0, 0, 2, 32);
      const auto whole = whole_model_on_first(rank);
      EXPECT_EQ(whole != nullptr, world.rank() == 0);
      if (!whole) return;
      loss = run_whole(rank.compute, whole->model(), whole->source())(micro).loss_sum;
    });
    return loss;
  };
  const double one = loss_of(1);
  EXPECT_GT(one, 0);
  config.mesh.tp = 2, config.mesh.pp = 2;
  EXPECT_EQ(loss_of(4), one);
  config.mesh = MeshConfig();
  config.mesh.cp = 2;  // all weights are on each rank
  EXPECT_EQ(loss_of(2), one);
}

}  // namespace
}  // namespace shoestring
