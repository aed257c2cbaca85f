#include "launcher/bench_commands.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/check.h"
#include "launcher/command_line.h"

namespace shoestring {
namespace {

int run(std::vector<std::string> arguments) { return run_command_line(arguments); }

TEST(BenchCommands, HelpAndMistakes) {
  EXPECT_EQ(run({"bench", "peak", "--help"}), 0);
  EXPECT_THROW(run({"bench", "peak", "--round", "3"}), Error);
  EXPECT_THROW(run({"bench", "peek"}), Error);
  EXPECT_THROW(run({"bench", "peak", "--rounds", "0"}), Error);
}

}  // namespace
}  // namespace shoestring
