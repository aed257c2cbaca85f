#include "launcher/rank_state.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

void on_one_rank(const RunConfig& config, const std::function<void(RankState&)>& body) {
  run_ranks(1, [&](Communicator& world) {
    RankState rank(config, world, 1);
    body(rank);
  });
}

TEST(RankState, FillsInTheVocabularyOfTheStores) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  on_one_rank(config, [](RankState& rank) {
    EXPECT_EQ(rank.config.model.vocabulary, 256);  // 200, rounded up
    EXPECT_EQ(rank.token_ids, 200);
    EXPECT_EQ(rank.tokenizer_hash, "abc");
    EXPECT_EQ(rank.store->param("embedding.weight").info.shape, (Shape{256, 32}));
  });
  config.model.vocabulary = 201;
  on_one_rank(config, [](RankState& rank) { EXPECT_EQ(rank.config.model.vocabulary, 201); });
}

TEST(RankState, MissingInputsNameTheKeyThePlaceAndTheCommand) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder);
  config.data.sources.push_back({.name = "b", .path = "gone/b.h5", .weight = 1, .held_out = {}});
  const std::string here = std::filesystem::current_path().string();
  expect_error(ExitCode::data,
               {"data.sources[1].path", "\"gone/b.h5\"", here + "/gone/b.h5", "current folder",
                "shoestring data pack --tokenizer", "--out gone/b.h5"},
               [&] { check_inputs(config, 1); });
  config.data.sources.pop_back();
  config.tokenizer = ".cache/quickstart/gone.json";  // what a script makes
  expect_error(ExitCode::data, {"launcher/quickstart, which downloads"},
               [&] { check_inputs(config, 1); });
  config.tokenizer = "gone/t.json";
  expect_error(ExitCode::data,
               {"tokenizer = ", here + "/gone/t.json", "current folder",
                "shoestring data train-tokenizer", "--out gone/t.json"},
               [&] { check_inputs(config, 1); });
}

TEST(RankState, SaysOnceThatNothingIsHeldOut) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.parallel.data_parallel = 2;
  const auto said = [&] {
    ::testing::internal::CaptureStderr();
    run_ranks(2, [&](Communicator& world) { RankState(config, world, 1); });
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(said(), "");
  config.data.held_out = 1e-9;
  const std::string text = said();
  const size_t at = text.find("there will be no validation");
  ASSERT_NE(at, std::string::npos) << text;
  EXPECT_EQ(text.find("there will be no validation", at + 1), std::string::npos) << text;
  EXPECT_NE(text.find("--split blank-lines"), std::string::npos) << text;
  config.data.held_out = 0;  // as it was asked for
  EXPECT_EQ(said(), "");
}

TEST(RankState, ExactModeAsksTheProcessor) {
  RunConfig config;
  const auto never = [] {
    ADD_FAILURE() << "asked without need";
    return false;
  };
  require_exact_products(config, never);
  config.train.exact = true;
  require_exact_products(config, [] { return true; });
  expect_error(ExitCode::fault, {"train.exact", "processor", "train.exact = false"},
               [&] { require_exact_products(config, [] { return false; }); });
}

TEST(RankState, BeginsWithTheSameWeightsInEveryLayout) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  std::vector<float> one;
  on_one_rank(config, [&](RankState& rank) {
    one.assign(rank.store->master().begin(), rank.store->master().end());
  });
  config.parallel.zero_stage = 1;
  run_ranks(3, [&](Communicator& world) {
    RankState rank(config, world, 1);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), rank.store->master().begin()));
  });
}

TEST(RankState, TheRateFollowsScheduleAndStage) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.schedule.kind = "constant";
  config.optim.schedule.warmup_steps = 2;
  StageSection later;
  later.from_tokens = 4 * 128;
  later.lr_multiplier = 0.25;
  config.stages = {later};
  on_one_rank(config, [&](RankState& rank) {
    EXPECT_LT(rank.lr_at(0), rank.lr_at(2));
    EXPECT_DOUBLE_EQ(rank.lr_at(3), config.optim.lr);
    EXPECT_DOUBLE_EQ(rank.lr_at(4), config.optim.lr / 4);
  });
}

TEST(RankState, RefreshedCopiesAreThoseOfTheLastUpdate) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.dtype = "bf16";
  config.optim.stochastic_rounding = true;
  on_one_rank(config, [](RankState& rank) {
    rank.store->zero_gradients();
    rank.optimizer->update({.step = 1,
                            .lr = 0.01,
                            .master = {rank.store->master()},
                            .gradients = {rank.store->gradients()},
                            .copy = {rank.store->compute_copy()}});
    rank.updates = 1;
    auto bits = [&] {
      const auto* raw = reinterpret_cast<const uint16_t*>(rank.store->compute_copy().data());
      return std::vector<uint16_t>(raw, raw + rank.store->elements());
    };
    const std::vector<uint16_t> updated = bits();
    rank.store->refresh_compute(0, rank.store->elements());
    EXPECT_NE(bits(), updated);  // nearest, not stochastic
    rank.refresh_copies();
    EXPECT_EQ(bits(), updated);
  });
}

TEST(RankState, ASampleMustFitBeforeItIsDue) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder);
  config.train.sample_every = 1000;
  config.train.sample_prompt = "Sir Walter";
  config.train.sample_tokens = 60;  // and some for the prompt, but there are 64 positions
  expect_error(ExitCode::usage, {"train.sample_prompt", "train.sample_tokens = 60", "64"},
               [&] { on_one_rank(config, [](RankState&) {}); });
  config.train.sample_tokens = 20;
  on_one_rank(config, [](RankState&) {});
  config.train.sample_every = 0;  // none is asked for
  config.train.sample_tokens = 60;
  on_one_rank(config, [](RankState&) {});
}

TEST(RankState, ARunMustBeShortEnoughToBeCounted) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 1000000000000;
  config.train.batch = 1000000;
  expect_error(ExitCode::usage, {"2^63 tokens", "train.steps"}, [&] { check_inputs(config, 2); });
  config.optim.schedule.drive = "steps";
  expect_error(ExitCode::usage, {"2^63 tokens", "train.steps"}, [&] { check_inputs(config, 2); });
}

TEST(RankState, SecondsGoOnFromEarlierStarts) {
  const ScratchFolder folder;
  on_one_rank(small_config(folder), [](RankState& rank) {
    const double first = rank.seconds();
    EXPECT_GT(first, 0);
    rank.seconds_before = 1000;
    EXPECT_GE(rank.seconds(), 1000 + first);
    EXPECT_LT(rank.seconds(), 1060 + first);
  });
}

}  // namespace
}  // namespace shoestring
