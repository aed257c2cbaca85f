#include "launcher/evaluate.h"

#include <cmath>

#include "parallel/comm/in_process.h"
#include "tests/launcher/text_model_fixture.h"

namespace shoestring {
namespace {

TEST(Evaluate, AnyNumberOfRanksGivesTheSameBits) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder);
  std::vector<double> losses;
  for (int ranks : {1, 2, 3}) {
    std::vector<double> seen(static_cast<size_t>(ranks));
    run_ranks(ranks, [&](Communicator& world) {
      LoadedModel model({.path = run, .threads = 1});
      const Loader loader(model.config.data, open_sources(model.config.data),
                          {{.length = 32, .sequences = 2, .micro_batches = 2}}, 1);
      const auto sums = evaluate_sources(model.stream, *model.model, *model.source, &world, loader,
                                         10, 3, 32, bytes_of_tokens(model.need_tokenizer()));
      EXPECT_GT(sums.at(0).sums.bytes, sums.at(0).sums.labels);
      seen[static_cast<size_t>(world.rank())] = sums.at(0).sums.loss;
    });
    for (double loss : seen) losses.push_back(loss);
  }
  for (double loss : losses) EXPECT_EQ(loss, losses[0]);
}

TEST(Evaluate, UnigramLossIsTheEntropyOfCountedFrequencies) {
  const ScratchFolder folder;
  // One token alone in every document: after smoothing its probability is nearly 1.
  make_store(folder / "one.h5", std::vector<std::vector<int32_t>>(50, std::vector<int32_t>(40, 7)),
             plain_facts(10));
  LoaderConfig config;
  config.held_out = 0.2;
  config.sources = {{.name = "one", .path = folder / "one.h5", .weight = 1, .held_out = {}}};
  const Loader loader(config, open_sources(config),
                      {{.length = 16, .sequences = 1, .micro_batches = 1}}, 1);
  const auto n = static_cast<double>(loader.train_stream(0).tokens());
  EXPECT_NEAR(unigram_loss(loader, 10, 100, 16, 1 << 20), -std::log((n + 1) / (n + 10)), 1e-12);
}

TEST(Evaluate, SpecialTokensStandForNoText) {
  const Tokenizer tokenizer = Tokenizer::load(test_data("tokenizer/trained_gpt2.json"));
  const std::vector<int32_t> bytes = bytes_of_tokens(tokenizer);
  ASSERT_TRUE(tokenizer.end_of_text_id());
  EXPECT_EQ(bytes[static_cast<size_t>(*tokenizer.end_of_text_id())], 0);
  const std::string text = "Sir Walter Elliot";
  int64_t sum = 0;
  for (int32_t id : tokenizer.encode(text)) sum += bytes[static_cast<size_t>(id)];
  EXPECT_EQ(sum, static_cast<int64_t>(text.size()));
}

}  // namespace
}  // namespace shoestring
