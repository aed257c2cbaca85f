#include "launcher/generator.h"

#include <gtest/gtest.h>

#include <limits>

#include "launcher/loaded_model.h"
#include "tests/launcher/text_model_fixture.h"

namespace shoestring {
namespace {

class Generator : public testing::Test {
 protected:
  Generator() {
    RunConfig config = text_config(folder_);
    config.train.steps = 15;
    train_small(config);
    loaded_ = std::make_unique<LoadedModel>(
        ModelRequest{.path = config.run.directory, .tokenizer = "", .dtype = "", .threads = 1});
  }
  GenerateResult run(const GenerateRequest& request) {
    return generate(loaded_->stream, *loaded_->model, *loaded_->source, *loaded_->tokenizer,
                    request);
  }
  static GenerateRequest request(std::vector<std::string> prompts, int64_t tokens) {
    return {.prompts = std::move(prompts), .max_tokens = tokens, .sampler = {}, .stop = {}};
  }
  ScratchFolder folder_;
  std::unique_ptr<LoadedModel> loaded_;
};

TEST_F(Generator, TheCacheChangesNoToken) {
  for (double temperature : {0.0, 0.8}) {
    GenerateRequest r = request({"Sir Walter", "Anne", ""}, 20);
    r.sampler.temperature = temperature;
    const GenerateResult cached = run(r);
    r.cached = false;
    const GenerateResult whole = run(r);
    EXPECT_EQ(cached.ids, whole.ids);
    EXPECT_EQ(cached.texts, whole.texts);
    EXPECT_EQ(cached.tokens, 60);
  }
}

// Of a model like DeepSeek-V3: latents in the cache, sparse blocks, a prediction module left out.
TEST(LatentGenerator, TheCacheChangesNoToken) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder);
  config.train.steps = 15;
  config.model.mla = {.kv_latent = 12, .q_latent = 16, .nope_dim = 8, .rope_dim = 4, .v_dim = 6};
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 16, .shared = 1, .first_dense = 1};
  config.model.mtp.depth = 1;
  train_small(config);
  LoadedModel loaded({.path = config.run.directory, .tokenizer = "", .dtype = "f32", .threads = 2});
  GenerateRequest r{.prompts = {"Sir Walter", "Anne", ""}, .max_tokens = 20};
  r.sampler.temperature = 0;
  const auto run = [&] {
    return generate(loaded.stream, *loaded.model, *loaded.source, *loaded.tokenizer, r);
  };
  const GenerateResult cached = run();
  r.cached = false;
  EXPECT_EQ(cached.ids, run().ids);
  EXPECT_EQ(cached.tokens, 60);
}

TEST_F(Generator, PromptsSideBySideAreAsAlone) {
  GenerateRequest both = request({"Sir Walter", "Lady Russell was"}, 12);
  both.sampler.temperature = 0;
  const GenerateResult together = run(both);
  for (size_t i = 0; i < 2; ++i) {
    GenerateRequest alone = request({both.prompts[i]}, 12);
    alone.sampler.temperature = 0;
    EXPECT_EQ(run(alone).ids[0], together.ids[i]);
  }
}

TEST_F(Generator, PiecesJoinToTheTextAndSeedsDecideIt) {
  GenerateRequest r = request({"Sir Walter"}, 24);
  std::string joined;
  r.on_text = [&](size_t prompt, const std::string& text) {
    EXPECT_EQ(prompt, 0u);
    joined += text;
  };
  const GenerateResult first = run(r);
  EXPECT_EQ(joined, first.texts[0]);
  EXPECT_EQ(loaded_->tokenizer->decode(first.ids[0]), first.texts[0]);
  r.on_text = nullptr;
  EXPECT_EQ(run(r).ids, first.ids);
  r.sampler.seed = 2;
  EXPECT_NE(run(r).ids, first.ids);
}

// With the blank between the prompt and the first word, without one where the text is all new.
TEST(CharLevelGenerator, TheTextGoesOnWithThePrompt) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder, "tokenizer/chars/llama2.json");
  LoadedModel loaded({.path = run, .tokenizer = "", .dtype = "f32", .threads = 1});
  const Tokenizer& tokenizer = loaded.need_tokenizer();
  int blanks = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    GenerateRequest r{.prompts = {"Anne \u00e9\u4e42", ""}, .max_tokens = 20};
    r.sampler.seed = seed;
    std::vector<std::string> joined(2);
    r.on_text = [&](size_t prompt, const std::string& text) { joined[prompt] += text; };
    const GenerateResult result =
        generate(loaded.stream, *loaded.model, *loaded.source, tokenizer, r);
    EXPECT_EQ(joined, result.texts);
    std::vector<int32_t> ids = tokenizer.encode(r.prompts[0]);
    ids.insert(ids.end(), result.ids[0].begin(), result.ids[0].end());
    EXPECT_EQ(tokenizer.decode(ids), r.prompts[0] + result.texts[0]);
    EXPECT_EQ(tokenizer.decode(result.ids[1]), result.texts[1]);
    blanks += result.texts[0].starts_with(" ");
  }
  EXPECT_GT(blanks, 0);
}

TEST_F(Generator, EndsBeforeAStopString) {
  GenerateRequest r = request({"Sir Walter"}, 30);
  const std::string text = run(r).texts[0];
  ASSERT_GT(text.size(), 12u);
  const std::string stop = text.substr(6, 3);
  r.stop = {stop, "a string that never comes"};
  std::string joined;
  r.on_text = [&](size_t, const std::string& piece) { joined += piece; };
  const std::string cut = run(r).texts[0];
  EXPECT_EQ(cut, text.substr(0, text.find(stop)));
  EXPECT_EQ(joined, cut);
}

TEST_F(Generator, EndsAtAnyIdThatEndsAText) {
  GenerateRequest r = request({"Sir Walter", "Anne"}, 16);
  r.sampler.temperature = 0;
  const std::vector<std::vector<int32_t>> whole = run(r).ids;
  const int32_t end = whole[0].at(5);
  r.end_ids = {100000, end};
  const GenerateResult cut = run(r);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(cut.ids[i], std::vector<int32_t>(whole[i].begin(),
                                               std::find(whole[i].begin(), whole[i].end(), end)));
  }
  EXPECT_LE(cut.ids[0].size(), 5u);
}

TEST_F(Generator, BeginsEachPromptAsItIsTold) {
  const int32_t first = *loaded_->tokenizer->end_of_text_id();
  const std::string name(loaded_->tokenizer->id_to_bytes(first));
  const auto ids = [&](const std::string& prompt, std::vector<int32_t> begin) {
    GenerateRequest r = request({prompt}, 12);
    r.begin_ids = std::move(begin);
    return run(r).ids[0];
  };
  const std::vector<int32_t> spelt = ids(name + "Anne", {});
  EXPECT_NE(ids("Anne", {}), spelt);
  EXPECT_EQ(ids("Anne", {first}), spelt);
  EXPECT_EQ(ids(name + "Anne", {first}), spelt) << "not twice";
  EXPECT_EQ(ids("", {first}), ids("", {}))
      << "an empty prompt begins with the end of a text anyway";
}

TEST_F(Generator, RefusesWhatDoesNotFit) {
  GenerateRequest stop = request({"Anne"}, 8);
  stop.stop = {"x", ""};
  expect_error(ExitCode::usage, {"--stop"}, [&] { run(stop); });
  expect_error(ExitCode::usage, {"64", "positions"}, [&] { run(request({"Anne"}, 64)); });
  expect_error(ExitCode::usage, {"9223372036854775807", "positions"},
               [&] { run(request({"Anne"}, std::numeric_limits<int64_t>::max())); });
  expect_error(ExitCode::usage, {"--max-tokens", "-1"}, [&] { run(request({"Anne"}, -1)); });
  GenerateRequest stopped = request({"Anne"}, 1);
  stopped.stop = {"x", ""};
  expect_error(ExitCode::usage, {"--stop is empty"}, [&] { run(stopped); });
  const GenerateResult none = run(request({"Anne"}, 0));
  EXPECT_EQ(none.tokens, 0);
  EXPECT_EQ(none.texts[0], "");
}

}  // namespace
}  // namespace shoestring
