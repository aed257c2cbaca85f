#include "launcher/train_tokenizer_command.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "io/tokenizer/tokenizer.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

class TrainTokenizerCommandTest : public testing::Test {
 protected:
  TrainTokenizerCommandTest() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::ofstream(folder_ / "a.txt") << "low lower lowest\nnewer newest low\n";
    std::ofstream(folder_ / "b.jsonl") << "{\"body\": \"low and new\"}\n{\"body\": \"slow\"}\n";
  }
  std::string path(const char* name) const { return (folder_ / name).string(); }

  const fs::path folder_ = fs::path(testing::TempDir()) / "train_tokenizer";
  std::string shown_;
  std::string train(const TrainTokenizerOptions& options) {
    return train_tokenizer(options, [&](const std::string& line) { shown_ += line + "\n"; });
  }
};

TEST_F(TrainTokenizerCommandTest, WritesAFolderThatLoads) {
  const std::string told = train({.inputs = {path("a.txt"), path("b.jsonl")},
                                  .out = path("tok"),
                                  .vocabulary_size = 270,
                                  .field = "body"});
  const Tokenizer tokenizer = Tokenizer::load(path("tok"));
  EXPECT_EQ(tokenizer.vocabulary_size(), 270);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.end_of_text_id(), 0);
  EXPECT_EQ(tokenizer.encode("low").size(), 1u);
  EXPECT_NE(told.find("270 tokens from 3 documents"), std::string::npos) << told;
  EXPECT_NE(shown_.find("reading: 3 documents"), std::string::npos) << shown_;
}

TEST_F(TrainTokenizerCommandTest, WritesAFileAndSaysWhenTextRunsOut) {
  const std::string told =
      train({.inputs = {path("a.txt")}, .out = path("deep/tok.json"), .pattern = "llama3"});
  EXPECT_LT(Tokenizer::load(path("deep/tok.json")).vocabulary_size(), 400);
  EXPECT_NE(told.find("no more pairs"), std::string::npos) << told;
  EXPECT_FALSE(fs::exists(path("deep/tokenizer_config.json")));
}

TEST_F(TrainTokenizerCommandTest, Mistakes) {
  EXPECT_THROW(train({.inputs = {path("missing.txt")}, .out = path("x")}), Error);
  EXPECT_THROW(train({.inputs = {path("a.txt")}, .out = path("x"), .vocabulary_size = 5}), Error);
  EXPECT_THROW(train({.inputs = {path("a.txt")}, .out = path("x"), .pattern = "none"}), Error);
  EXPECT_THROW(train({.inputs = {path("a.txt")}, .out = path("a.txt/x.json")}), Error);
  EXPECT_THROW(train({.inputs = {path("b.jsonl")}, .out = path("x")}), Error);  // no "text"
  EXPECT_FALSE(fs::exists(path("x")));
}

}  // namespace
}  // namespace shoestring
