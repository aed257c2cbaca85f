#include "launcher/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launcher/rank_state.h"
#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

std::vector<SourceLoss> evaluate_on(const RunConfig& config, int ranks, int64_t micro_batch) {
  std::vector<SourceLoss> result;
  run_ranks(ranks, [&](Communicator& world) {
    RankState rank(config, world, 1);
    const Evaluator who = rank.evaluator();
    const auto losses = evaluate_sources(who, *rank.loader, {9, micro_batch, 32});
    if (world.rank() == ranks - 1) result = losses;
  });
  return result;
}

TEST(Evaluate, AnyNumberOfRanksGivesTheSameBits) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.data.sources.push_back(
      {.name = "second", .path = folder / "second.h5", .weight = 0, .held_out = 0.2});
  const auto one = evaluate_on(config, 1, 2);
  ASSERT_EQ(one.size(), 2u);
  EXPECT_EQ(one[1].name, "second");
  EXPECT_NEAR(one[0].sums.mean(), std::log(256.0), 0.05);
  for (int ranks : {2, 3, 7}) {
    const auto many = evaluate_on(config, ranks, 2);
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_EQ(many[i].sums.loss, one[i].sums.loss);
      EXPECT_EQ(many[i].sums.labels, one[i].sums.labels);
      EXPECT_EQ(many[i].sums.correct, one[i].sums.correct);
    }
  }
  const auto wider = evaluate_on(config, 1, 4);
  EXPECT_EQ(wider[0].sums.labels, one[0].sums.labels);
  EXPECT_NEAR(wider[0].sums.loss, one[0].sums.loss, 1e-6 * one[0].sums.loss);
}

// All ranks leave the evaluation in the same round, and there is no result.
TEST(Evaluate, StopsBetweenRounds) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.data.sources.push_back(
      {.name = "second", .path = folder / "second.h5", .weight = 0, .held_out = 0.2});
  for (int ranks : {1, 3}) {
    for (int64_t last : {1, 2, 4, 1000}) {
      std::vector<int64_t> asked(static_cast<size_t>(ranks));
      run_ranks(ranks, [&](Communicator& world) {
        RankState rank(config, world, 1);
        int64_t& calls = asked[static_cast<size_t>(world.rank())];
        Evaluator who = rank.evaluator();
        who.stop = [&] { return ++calls == last; };
        const auto losses = evaluate_sources(who, *rank.loader, {7, 1, 32});
        EXPECT_EQ(losses.size(), last == 1000 ? 2u : 0u);
      });
      // 7 rows in rounds of `ranks`, twice; asked before each round but the very first.
      const int64_t rounds = (7 + ranks - 1) / ranks;
      const std::vector<int64_t> wanted(asked.size(), std::min(last, 2 * rounds - 1));
      EXPECT_EQ(asked, wanted) << ranks << " ranks, stopped at " << last;
    }
  }
}

TEST(Evaluate, BytesAreThoseOfTheLabels) {
  const ScratchFolder folder;
  const RunConfig config = text_config(folder);
  run_ranks(1, [&](Communicator& world) {
    RankState rank(config, world, 1);
    const MicroBatch micro = rank.loader->eval_micro_batch(0, 0, 2, 32);
    int64_t bytes = 0;
    for (int32_t label : micro.labels) {
      if (label >= 0 && !rank.tokenizer->is_special(label)) {
        bytes += static_cast<int64_t>(rank.tokenizer->id_to_bytes(label).size());
      }
    }
    Evaluator who = rank.evaluator();
    who.ranks = nullptr;  // alone
    const EvalSums sums = evaluate_micro_batches(who, 1, [&](int64_t) { return micro; });
    EXPECT_EQ(sums.bytes, bytes);
    EXPECT_EQ(sums.labels, micro.valid_labels);
    EXPECT_DOUBLE_EQ(sums.bits_per_byte(), sums.loss / std::log(2.0) / static_cast<double>(bytes));
  });
}

TEST(Evaluate, SpecialTokensSpellNoText) {
  const Tokenizer t = Tokenizer::load(SHOESTRING_SOURCE_DIR "/tests/data/tiny/tokenizer.json");
  const std::vector<int32_t> bytes = bytes_of_tokens(t);
  ASSERT_EQ(bytes.size(), static_cast<size_t>(t.vocabulary_size()));
  EXPECT_EQ(bytes[static_cast<size_t>(*t.end_of_text_id())], 0);
  for (int32_t id : t.encode("Sir Walter")) {
    EXPECT_EQ(bytes[static_cast<size_t>(id)], static_cast<int32_t>(t.id_to_bytes(id).size()));
  }
}

TEST(Evaluate, SumsWithoutLabelsOrBytesAreZero) {
  EvalSums sums;
  EXPECT_EQ(sums.mean(), 0);
  EXPECT_EQ(sums.bits_per_byte(), 0);
  sums.add({.loss = 6, .labels = 3, .correct = 1, .bytes = 4});
  sums.add({.loss = 2, .labels = 1, .correct = 1, .bytes = 4});
  EXPECT_EQ(sums.mean(), 2);
  EXPECT_DOUBLE_EQ(sums.bits_per_byte(), 1 / std::log(2.0));
  EXPECT_EQ(sums.correct, 2);
}

// Training tokens: 30 of 1 and 10 of 2; add-one smoothing over 4 ids.
TEST(Evaluate, TheUnigramGuessCountsTrainingTokens) {
  const ScratchFolder folder;
  const std::vector<int32_t> train(40, 1), held(17, 2);
  std::vector<int32_t> mixed = train;
  std::fill(mixed.begin() + 30, mixed.end(), 2);
  uint64_t out = 0;  // a text hash that is held out at one half
  while (!is_held_out(out, 0.5)) ++out;
  uint64_t in = 0;
  while (is_held_out(in, 0.5)) ++in;
  make_store(folder / "s.h5", {mixed, held}, plain_facts(4), {in, out});
  LoaderConfig config;
  config.held_out = 0.5;
  config.sources = {{.name = "s", .path = folder / "s.h5", .weight = 1, .held_out = {}}};
  const Loader loader(
      config, open_sources(config),
      {{.from_tokens = 0, .length = 8, .sequences = 1, .micro_batches = 1, .weights = {}}}, 1);
  EXPECT_NEAR(unigram_loss(loader, 4, 100, 8, 1000), -std::log(11.0 / 44), 1e-12);
}

}  // namespace
}  // namespace shoestring
