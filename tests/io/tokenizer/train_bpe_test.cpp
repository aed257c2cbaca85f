#include "io/tokenizer/train_bpe.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tokenizer/tokenizer.h"

namespace shoestring {
namespace {

const std::string data_folder = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/";

DocumentSource lines_of(std::istream& file) {
  return [&file](const std::function<void(std::string)>& add) {
    for (std::string line; std::getline(file, line);) {
      add(line);
    }
  };
}

DocumentSource texts(std::vector<std::string> all) {
  return [all = std::move(all)](const std::function<void(std::string)>& add) {
    for (const std::string& text : all) {
      add(text);
    }
  };
}

TEST(TrainBpeTest, EqualsTheReferenceTrainer) {
  for (const std::string pattern : {"gpt2", "llama3"}) {
    for (const int threads : {1, 3}) {
      std::ifstream corpus(data_folder + "corpus.txt", std::ios::binary);
      int reports = 0;
      BpeTrainProgress last;
      const std::string text = train_bpe(
          lines_of(corpus), {.vocabulary_size = 1200, .pattern = pattern, .threads = threads},
          [&](const BpeTrainProgress& now) {
            last = now;
            ++reports;
          });
      const auto ours = nlohmann::json::parse(text);
      std::ifstream file(data_folder + "trained_" + pattern + ".json");
      const auto expected = nlohmann::json::parse(file);
      EXPECT_EQ(ours["model"]["vocab"], expected["model"]["vocab"]);
      EXPECT_EQ(ours["model"]["merges"], expected["model"]["merges"]);
      EXPECT_EQ(ours, expected);  // the whole file, up to spelling
      EXPECT_GT(reports, 2);
      EXPECT_EQ(last.documents, 250);
      EXPECT_EQ(last.tokens, 1200);
    }
  }
}

TEST(TrainBpeTest, TheResultLoadsAndRoundTrips) {
  const std::string json = train_bpe(texts({"low lower lowest", "new newer newest", "\xFF\xFE"}),
                                     {.vocabulary_size = 280});
  const Tokenizer tokenizer = Tokenizer::from_json(json, "trained");
  EXPECT_EQ(tokenizer.end_of_text_id(), 0);
  EXPECT_LE(tokenizer.vocabulary_size(), 280);
  EXPECT_EQ(tokenizer.encode("low").size(), 1u);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("any \xFF text \u00e9")), "any \xFF text \u00e9");
}

TEST(TrainBpeTest, StopsWhenPairsRunOutOrAreTooRare) {
  const auto size = [](int64_t min_frequency) {
    const std::string json = train_bpe(texts({"abab abab xy"}),
                                       {.vocabulary_size = 1000, .min_frequency = min_frequency});
    return Tokenizer::from_json(json, "trained").vocabulary_size();
  };
  EXPECT_EQ(size(0), 257 + 5);  // ab, abab, " abab", xy, " xy": each word is one token
  EXPECT_EQ(size(2), 257 + 2);  // ab, abab
}

TEST(TrainBpeTest, RefusesImpossibleOptions) {
  EXPECT_THROW(train_bpe(texts({}), {}), Error);
  EXPECT_THROW(train_bpe(texts({""}), {}), Error);
  EXPECT_THROW(train_bpe(texts({"a"}), {.vocabulary_size = 256}), Error);
  EXPECT_THROW(train_bpe(texts({"a"}), {.vocabulary_size = -5}), Error);
  EXPECT_THROW(train_bpe(texts({"a"}), {.pattern = "gpt5"}), Error);
  EXPECT_THROW(train_bpe(texts({"a"}), {.special_tokens = {"<a>", "<a>"}}), Error);
  EXPECT_THROW(train_bpe(texts({"a"}), {.special_tokens = {""}}), Error);
  EXPECT_THROW(train_bpe(texts({"a"}), {.special_tokens = {"a"}}), Error);
}

}  // namespace
}  // namespace shoestring
