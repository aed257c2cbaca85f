#include "launcher/train_tokenizer_command.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "io/durable_file.h"
#include "io/tokenizer/tokenizer.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

class TrainTokenizerCommandTest : public testing::Test {
 protected:
  TrainTokenizerCommandTest() {
    std::ofstream(folder_ / "a.txt") << "low lower lowest\nnewer newest low\n";
    std::ofstream(folder_ / "b.jsonl") << "{\"body\": \"low and new\"}\n{\"body\": \"slow\"}\n";
  }
  std::string path(const char* name) const { return (folder_ / name).string(); }

  const ScratchFolder scratch_;
  const fs::path folder_ = fs::path(scratch_ / "");
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

TEST_F(TrainTokenizerCommandTest, ReplacesFilesOnlyWhenAskedTo) {
  const TrainTokenizerOptions folder{.inputs = {path("a.txt")}, .out = path("tok")};
  const TrainTokenizerOptions file{.inputs = {path("a.txt")}, .out = path("tok.json")};
  fs::create_directories(path("tok"));
  for (const char* there : {"tok/tokenizer.json", "tok/tokenizer_config.json", "tok.json"}) {
    std::ofstream(path(there)) << "mine";
    TrainTokenizerOptions options = fs::path(there).has_parent_path() ? folder : file;
    expect_error(ExitCode::usage, {path(there), "exists", "--overwrite"}, [&] { train(options); });
    EXPECT_EQ(read_small_file(path(there), 100), "mine");
    options.overwrite = true;
    train(options);
    EXPECT_NE(read_small_file(path(there), 100'000), "mine");
    fs::remove(path(there));
    fs::remove(path("tok/tokenizer.json"));
  }
  fs::create_directories(path("b.json"));
  expect_error(ExitCode::usage, {path("b.json"), "no regular file"}, [&] {
    train({.inputs = {path("a.txt")}, .out = path("b.json"), .overwrite = true});
  });
}

TEST_F(TrainTokenizerCommandTest, BrokenTextIsRefusedReplacedOrKept) {
  std::ofstream(path("bad.txt")) << "low \xff low \xff low \xff";
  TrainTokenizerOptions options{.inputs = {path("bad.txt")}, .out = path("bad.json")};
  expect_error(ExitCode::data, {"bad UTF-8 at byte 4: 0xff", "--bad-utf8 replace (or keep)"},
               [&] { train(options); });
  options.bad_utf8 = "no";
  expect_error(ExitCode::usage, {"--bad-utf8 no", "error, replace, keep"}, [&] { train(options); });
  options.overwrite = true;
  options.bad_utf8 = "replace";
  EXPECT_NE(train(options).find("replaced: 3 broken UTF-8 sequences\n"), std::string::npos);
  EXPECT_EQ(Tokenizer::load(path("bad.json")).encode(" \xef\xbf\xbd").size(), 1u);
  options.bad_utf8 = "keep";
  EXPECT_EQ(train(options).find("replaced"), std::string::npos);
  EXPECT_GT(Tokenizer::load(path("bad.json")).encode(" \xef\xbf\xbd").size(), 1u);
}

TEST_F(TrainTokenizerCommandTest, RefusesUtf16) {
  std::ofstream(path("wide.txt")) << std::string("l\0o\0w\0 \0l\0o\0w\0", 14);
  for (const char* policy : {"error", "replace", "keep"}) {
    expect_error(ExitCode::data, {"wide.txt", "UTF-16", "iconv"}, [&] {
      train({.inputs = {path("wide.txt")}, .out = path("x.json"), .bad_utf8 = policy});
    });
  }
  EXPECT_FALSE(fs::exists(path("x.json")));
}

TEST_F(TrainTokenizerCommandTest, SaysWhyAFileCannotBeWritten) {
  expect_error(ExitCode::data, {path("a.txt"), "Not a directory"},
               [&] { train({.inputs = {path("a.txt")}, .out = path("a.txt/x.json")}); });
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
