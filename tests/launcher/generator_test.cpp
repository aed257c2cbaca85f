#include "launcher/generator.h"

#include "tests/launcher/text_model_fixture.h"

namespace shoestring {
namespace {

class GeneratorTest : public ::testing::Test {
 protected:
  ScratchFolder folder_;
  LoadedModel model_{{.path = train_text_model(folder_), .threads = 1}};
  GenerateResult run(const GenerateRequest& request) {
    return generate(model_.stream, *model_.model, *model_.source, model_.need_tokenizer(), request);
  }
};

TEST_F(GeneratorTest, CachedTextIsTheUncachedText) {
  GenerateRequest request{.prompts = {"Sir Walter", "It was", "A"}, .max_tokens = 20, .stop = {}};
  request.sampler.temperature = 0;  // a draw could turn on the last bit of a logit
  const GenerateResult cached = run(request);
  request.cached = false;
  const GenerateResult whole = run(request);
  EXPECT_EQ(cached.ids, whole.ids);
  EXPECT_EQ(cached.texts, whole.texts);
  EXPECT_EQ(cached.tokens, 60);
}

TEST_F(GeneratorTest, PiecesJoinedAreTheTextAndTheTextIsTheTokens) {
  GenerateRequest request{.prompts = {"Anne"}, .max_tokens = 30, .stop = {}};
  std::string pieces;
  request.on_text = [&](size_t, const std::string& text) { pieces += text; };
  const GenerateResult result = run(request);
  EXPECT_EQ(pieces, result.texts[0]);
  EXPECT_EQ(result.texts[0], model_.need_tokenizer().decode(result.ids[0]));
}

TEST_F(GeneratorTest, APromptAloneDoesNotChangeBesideOthers) {
  const GenerateRequest one{.prompts = {"Anne"}, .max_tokens = 12, .stop = {}};
  const GenerateRequest two{.prompts = {"Anne", "Captain"}, .max_tokens = 12, .stop = {}};
  EXPECT_EQ(run(one).ids[0], run(two).ids[0]);
}

TEST_F(GeneratorTest, StopStringsEndTheTextBeforeThem) {
  const GenerateRequest plain{.prompts = {"Anne"}, .max_tokens = 30, .stop = {}};
  const std::string text = run(plain).texts[0];
  ASSERT_GT(text.size(), 12u);
  const std::string stop = text.substr(6, 3);
  GenerateRequest stopped = plain;
  stopped.stop = {stop};
  std::string pieces;
  stopped.on_text = [&](size_t, const std::string& piece) { pieces += piece; };
  EXPECT_EQ(run(stopped).texts[0], text.substr(0, text.find(stop)));
  EXPECT_EQ(pieces, text.substr(0, text.find(stop)));
}

TEST_F(GeneratorTest, TooMuchTextIsAUsageErrorAndAnEmptyPromptBegins) {
  EXPECT_THROW(run({.prompts = {"Anne"}, .max_tokens = 64, .stop = {}}), Error);
  EXPECT_EQ(run({.prompts = {""}, .max_tokens = 5, .stop = {}}).tokens, 5);
  EXPECT_EQ(run({.prompts = {"Anne"}, .max_tokens = 0, .stop = {}}).tokens, 0);
}

}  // namespace
}  // namespace shoestring
