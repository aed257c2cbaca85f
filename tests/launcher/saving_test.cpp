#include "launcher/saving.h"

#include <gtest/gtest.h>

#include <cstring>

#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

RunConfig rich_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.train.steps = 3;
  config.optim.ema_decay = 0.9;
  config.optim.optimizer = "muon";
  return config;
}

TEST(Saving, NamesEveryPieceOfTheState) {
  const ScratchFolder folder;
  run_ranks(1, [&](Communicator& world) {
    const RankState rank(rich_config(folder), world, 1);
    const CheckpointContent content = content_of(rank);
    std::map<std::string, int64_t> elements;
    for (const TensorPiece& piece : content.pieces) elements[piece.name] += piece.end - piece.begin;
    for (const Param& p : rank.store->params()) {
      EXPECT_EQ(elements.at("model/" + p.info.name), p.elements);
      EXPECT_EQ(elements.at("optim/ema/" + p.info.name), p.elements);
    }
    EXPECT_EQ(elements.at("optim/m/embedding.weight"), 256 * 32);
    const auto facts = nlohmann::json::parse(content.state);
    EXPECT_EQ(facts.at("step"), 0);
    EXPECT_EQ(facts.at("tokenizer_hash"), "abc");
    EXPECT_NE(content.config.find("optimizer"), std::string::npos);
  });
}

TEST(Saving, WithWholeStateRankZeroSavesForAll) {
  const ScratchFolder folder;
  RunConfig config = rich_config(folder);
  for (int64_t zero_stage : {0, 1}) {
    config.parallel.zero_stage = zero_stage;
    run_ranks(3, [&](Communicator& world) {
      const RankState rank(config, world, 1);
      EXPECT_EQ(content_of(rank).pieces.empty(), zero_stage == 0 && world.rank() > 0);
    });
  }
}

TEST(Saving, EveryLayoutTakesTheStateBack) {
  const ScratchFolder folder;
  RunConfig config = rich_config(folder);
  const RunResult saved = train_small(config);
  const Checkpoint checkpoint = Checkpoint::open(config.run.directory);
  for (int ranks : {1, 2, 3}) {
    config.parallel.zero_stage = ranks > 1 ? 1 : 0;
    run_ranks(ranks, [&](Communicator& world) {
      RankState rank(config, world, 1);
      restore(rank, checkpoint);
      EXPECT_EQ(rank.step, 3);
      EXPECT_EQ(rank.updates, 3);
      EXPECT_GT(rank.seconds_before, 0);
      EXPECT_GT(rank.seconds(), rank.seconds_before);
      for (const TensorPiece& piece : content_of(rank).pieces) {
        const std::vector<std::byte>& whole = saved.tensors.at(piece.name);
        const size_t size = size_of(piece.dtype);
        EXPECT_EQ(std::memcmp(whole.data() + static_cast<size_t>(piece.begin) * size, piece.data,
                              static_cast<size_t>(piece.end - piece.begin) * size),
                  0)
            << piece.name;
      }
    });
  }
}

TEST(Saving, TheAverageTakesTheWeightsPlace) {
  const ScratchFolder folder;
  const RunConfig config = rich_config(folder);
  const RunResult saved = train_small(config);
  run_ranks(1, [&](Communicator& world) {
    const RankState rank(config, world, 1);
    restore_average(*rank.store, Checkpoint::open(config.run.directory));
    const Param& p = rank.store->param("embedding.weight");
    const auto& average = saved.tensors.at("optim/ema/embedding.weight");
    EXPECT_EQ(std::memcmp(average.data(), rank.store->master(p).raw(), average.size()), 0);
    EXPECT_NE(average, saved.tensors.at("model/embedding.weight"));
  });
}

TEST(Saving, ComparesTokenizers) {
  const ScratchFolder folder;
  train_small(rich_config(folder));
  const Checkpoint checkpoint = Checkpoint::open(folder / "run");
  EXPECT_EQ(tokenizer_hash_of(checkpoint), "abc");
  TokenizerPair pair{.checkpoint = "run",
                     .trained = "abc",
                     .other = "that of store.h5",
                     .hash = "abd",
                     .remedy = "do this"};
  expect_error(ExitCode::data, {"run was trained", "abc", "that of store.h5 is abd; do this"},
               [&] { require_same_tokenizer(pair); });
  pair.hash = "abc";
  require_same_tokenizer(pair);
  pair.hash = "abd";
  pair.trained = "";
  require_same_tokenizer(pair);
}

TEST(Saving, RefusesFactsOfAnotherProgram) {
  const ScratchFolder folder;
  run_ranks(1, [&](Communicator& world) {
    RankState rank(rich_config(folder), world, 1);
    CheckpointContent content = content_of(rank);
    content.state = "{\"epoch\": 3}";
    {
      CheckpointWriter writer({.directory = folder / "foreign"});
      writer.save(content);
      writer.finish();
    }
    const Checkpoint foreign = Checkpoint::open(folder / "foreign");
    expect_error(ExitCode::data, {"not those of a training run"}, [&] { restore(rank, foreign); });
  });
}

TEST(Saving, KeepsWhatIsOwedAndWhatWasPaidFor) {
  const ScratchFolder folder;
  const RunConfig config = small_config(folder);
  run_ranks(1, [&](Communicator& world) {
    RankState rank(config, world, 1);
    rank.owed = {.evaluation = true, .sample = false};
    rank.seconds_before = 500;
    CheckpointWriter writer(checkpoint_options(rank));
    writer.save(content_of(rank));
    writer.finish();
    RankState later(config, world, 1);
    restore(later, Checkpoint::open(config.run.directory));
    EXPECT_TRUE(later.owed.evaluation);
    EXPECT_FALSE(later.owed.sample);
    EXPECT_GE(later.seconds_before, 500);
  });
}

TEST(Saving, TheConfigSaysHow) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.checkpoint.keep = 7;
  config.checkpoint.memory_limit_gb = 0.5;
  config.checkpoint.deadline = 44;
  run_ranks(2, [&](Communicator& world) {
    const RankState rank(config, world, 1);
    const CheckpointOptions options = checkpoint_options(rank);
    EXPECT_EQ(options.directory, config.run.directory + "/checkpoints");
    EXPECT_EQ(options.rank, world.rank());
    EXPECT_EQ(options.ranks, 2);
    EXPECT_EQ(options.keep, 7);
    EXPECT_EQ(options.memory_limit_bytes, 500000000);
    EXPECT_EQ(options.deadline_seconds, 44);
    EXPECT_EQ(options.ledger, &rank.compute.device().ledger());
  });
}

}  // namespace
}  // namespace shoestring
