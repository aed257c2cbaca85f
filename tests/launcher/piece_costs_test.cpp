#include "launcher/piece_costs.h"

#include <numeric>

#include "launcher/rank_state.h"
#include "parallel/comm/run_ranks.h"
#include "tests/launcher/parity_fixture.h"
#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

TEST(PieceCosts, EveryPieceTakesTime) {
  const ScratchFolder folder;
  RunConfig config = with_vocabulary(parity_config(folder));
  const PieceTimes sparse = measure_pieces(config, 1, 1);
  EXPECT_GT(sparse.embedding, 0);
  EXPECT_GT(sparse.dense, 0);
  EXPECT_GT(sparse.sparse, 0);
  EXPECT_GT(sparse.head, 0);
  config.model.mtp.depth = 1;
  config.model.moe.balance.global_batch = 0.1;
  config.train.dtype = "bf16";
  config.precision.recipe = "deepseek_v3";
  EXPECT_GT(measure_pieces(config, 1, 1).sparse, 0);
  config.model.moe = {};
  EXPECT_EQ(measure_pieces(config, 1, 1).sparse, 0);
}

// A head of a hundred times as many rows is not the cheapest piece.
TEST(PieceCosts, FollowTheSizes) {
  const ScratchFolder folder;
  RunConfig config = with_vocabulary(small_config(folder));
  const PieceTimes before = measure_pieces(config, 1, 5);
  config.model.vocabulary *= 100;
  EXPECT_GT(measure_pieces(config, 1, 5).head, 5 * before.head);
}

TEST(PieceCosts, SpreadIsMeasuredAndNotedAboveATenth) {
  const ScratchFolder folder;
  const RunConfig config = with_vocabulary(parity_config(folder));
  EXPECT_EQ(measure_pieces(config, 1, 1).spread.head, 0);  // of one round
  EXPECT_GT(measure_pieces(config, 1, 7).spread.head, 0);
  PieceTimes times{.embedding = 1, .dense = 1, .sparse = 1, .head = 1};
  times.spread.dense = 0.1;
  EXPECT_EQ(text_of_noise(times), "");
  times.spread.dense = 0.124, times.spread.head = 2;
  const std::string text = text_of_noise(times);
  EXPECT_NE(text.find("(dense block 12 %, head 200 %): the machine is busy"), std::string::npos)
      << text;
}

// As much as the store and the passes take, little more.
TEST(PieceCosts, MemoryToMeasureIsAskedForBefore) {
  const ScratchFolder folder;
  RunConfig config = with_vocabulary(parity_config(folder));
  config.train.micro_batch = 4;
  const auto fits = [&](int64_t bytes) {
    try {
      require_memory_to_measure(config, 1, bytes);
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find("pipeline.layers"), std::string::npos);
      return false;
    }
  };
  const auto least = [&] {
    int64_t low = 0, high = int64_t{1} << 40;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (fits(middle) ? high : low) = middle;
    }
    return high;
  };
  const int64_t before = least();
  config.train.micro_batch = 8;
  EXPECT_GT(least(), before);
  config.train.micro_batch = 4, config.model.vocabulary *= 100;
  EXPECT_GT(least(), before + 8 * 99 * 2 * config.model.hidden);
  config.model.layers = 400;  // more of a kind are not measured
  const int64_t deep = least();
  config.model.layers = 4;
  EXPECT_LT(deep, 2 * least());
}

TEST(PieceCosts, AreThoseOfEachBlocksKind) {
  ModelConfig model;
  model.layers = 3;
  model.moe = {.experts = 4, .chosen = 2, .ffn = 16, .first_dense = 1};
  const PieceCosts costs = costs_of(model, {.embedding = 1, .dense = 2, .sparse = 3, .head = 4});
  EXPECT_EQ(costs.blocks, (std::vector<double>{2, 3, 3}));
  EXPECT_EQ(text_of_split(costs, {2, 1}), "2 + 1 blocks, the dearest stage 1.08 of the mean");
}

TEST(PieceCosts, ARunSplitsByWhatItMeasures) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.train.exact = true;
  config.parallel.data_parallel = 1;
  config.mesh.pp = 2;
  config.pipeline.split = "measured";
  const ParityResult r = parity_of(config);
  EXPECT_TRUE(r.met()) << text_of(r);
  run_ranks(2, [&](Communicator& world) {
    const RankState rank(config, world, 1, 2);
    const std::vector<int64_t>& blocks = rank.config.pipeline.layers;
    EXPECT_EQ(std::accumulate(blocks.begin(), blocks.end(), int64_t{0}), config.model.layers);
    EXPECT_EQ(blocks, rank.part->config().blocks);
    EXPECT_EQ(rank.split_text.empty(), world.rank() > 0);
  });
}

// What a run saves is read again: by the same command, under the same key, and by others.
TEST(PieceCosts, AMeasuredRunIsResumed) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder);
  config.model.layers = 4;
  config.train.steps = 2;
  config.optim.schedule.total = 4000;
  config.mesh.pp = 2;
  config.train.micro_batch = 1;
  config.pipeline.split = "measured";
  train_small(config);
  config.train.steps = 3;
  EXPECT_EQ(train_small(config).steps.size(), 3u);
  const BinaryResult show = run_binary({"config", "show", config.run.directory + "/config.toml"});
  EXPECT_EQ(show.exit_code, 0) << show.err;
  const BinaryResult generate = run_binary(
      {"generate", "--model", config.run.directory, "--prompt", "Sir", "--max-tokens", "2"});
  EXPECT_EQ(generate.exit_code, 0) << generate.err;
}

// The embedding and the head may stand alone.
TEST(PieceCosts, EndsWithoutABlockTrainAlike) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.train.exact = true;
  config.model.mtp.depth = 1;
  config.mesh.pp = 4;
  for (const char* schedule : {"1f1b", "zb-h1", "dualpipe"}) {
    config.pipeline.schedule = schedule;
    config.pipeline.layers = {0, 2, 2, 0};
    const ParityResult r = parity_of(config);
    EXPECT_TRUE(r.met()) << schedule << ": " << text_of(r);
  }
  config.mesh.pp = 2;
  for (const char* schedule : {"interleaved-1f1b", "zb-v", "dualpipev"}) {
    config.pipeline.schedule = schedule;
    const ParityResult r = parity_of(config);
    EXPECT_TRUE(r.met()) << schedule << ": " << text_of(r);
  }
}

}  // namespace
}  // namespace shoestring
