#include "launcher/parity_commands.h"

#include <gtest/gtest.h>

#include "launcher/command_line.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

TEST(ParityCommands, RunsAndEndsWithTheVerdict) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  write_file(folder / "run.toml", dump_config(config, false));
  testing::internal::CaptureStdout();
  const int code = run_command_line(
      std::vector<std::string>{"parity", folder / "run.toml", "--set", "mesh.tp=2"});
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_EQ(code, 0) << text;
  EXPECT_TRUE(text.starts_with("parity of " + (folder / "run.toml") + ": ")) << text;
  EXPECT_NE(text.find("the layout equals one rank"), std::string::npos) << text;
}

TEST(ParityCommands, Mistakes) {
  const auto run = [](const std::vector<std::string>& words) { run_command_line(words); };
  expect_error(ExitCode::usage, {"--layout"}, [&] {
    run({"parity", "x.toml", "--layout", "all"});
  });
  expect_error(ExitCode::usage, {"/nowhere.toml"}, [&] { run({"parity", "/nowhere.toml"}); });
}

}  // namespace
}  // namespace shoestring
