#include "launcher/folder_commands.h"

#include <gtest/gtest.h>

#include "launcher/command_line.h"
#include "tests/launcher/folder_model_fixture.h"

namespace shoestring {
namespace {

TEST(FolderCommands, ImportAndExport) {
  const ScratchFolder folder;
  const std::vector<std::string> in = {"import", golden_folder("qwen3"), "--out", folder / "run"};
  EXPECT_EQ(run_command_line(in), 0);
  const std::vector<std::string> out = {"export",  folder / "run", "--format",     "hf",
                                        "--out",   folder / "hf",  "--shard-size", "20KB",
                                        "--dtype", "f32"};
  EXPECT_EQ(run_command_line(out), 0);
  EXPECT_TRUE(std::filesystem::exists(folder / "hf/model.safetensors.index.json"));
  std::vector<std::string> again = out;
  expect_error(ExitCode::usage, {"--force"}, [&] { run_command_line(again); });
  again.push_back("--force");
  EXPECT_EQ(run_command_line(again), 0);
}

TEST(FolderCommands, MissingOptionsAreUsageErrors) {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"import"}, {"import", "x"}, {"export", "x"}, {"export"}}) {
    expect_error(ExitCode::usage, {"--help"}, [&] { run_command_line(words); });
  }
}

}  // namespace
}  // namespace shoestring
