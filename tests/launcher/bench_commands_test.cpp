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
  testing::internal::CaptureStdout();
  EXPECT_EQ(run({"bench", "peak", "--help"}), 0);
  const std::string help = testing::internal::GetCapturedStdout();
  for (const char* limit : {"4096; 0 = all", "1 or more", "from 1024 to 16384", "MiB", "Time: "}) {
    EXPECT_NE(help.find(limit), std::string::npos) << limit << " is not in:\n" << help;
  }
  EXPECT_THROW(run({"bench", "peak", "--threads", "4097"}), Error);
  EXPECT_THROW(run({"bench", "peak", "--round", "3"}), Error);
  EXPECT_THROW(run({"bench", "peek"}), Error);
  EXPECT_THROW(run({"bench", "peak", "--rounds", "0"}), Error);
}

}  // namespace
}  // namespace shoestring
