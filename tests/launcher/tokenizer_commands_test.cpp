#include "launcher/tokenizer_commands.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "io/tokenizer/tokenizer.h"
#include "launcher/command_line.h"

namespace shoestring {
namespace {

TEST(TokenizerCommandsTest, TrainsThroughTheCommandLine) {
  const std::string folder = testing::TempDir() + "/tokenizer_commands";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/a.txt") << "low lower lowest\n";
  const std::vector<std::string> arguments = {
      "data", "train-tokenizer", folder + "/a.txt", "--vocabulary-size",
      "260",  "--out",           folder + "/tok"};
  EXPECT_EQ(run_command_line(arguments), 0);
  EXPECT_EQ(Tokenizer::load(folder + "/tok").vocabulary_size(), 260);
}

TEST(TokenizerCommandsTest, MissingOptionsAreUsageErrors) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"tokenize"},
                                                    {"detokenize"},
                                                    {"data", "train-tokenizer", "a.txt"},
                                                    {"tokenize", "--tokenizr", "x"}}) {
    try {
      run_command_line(arguments);
      ADD_FAILURE() << arguments[0];
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage) << error.what();
    }
  }
}

}  // namespace
}  // namespace shoestring
