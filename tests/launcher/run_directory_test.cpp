#include "launcher/run_directory.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/check.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(RunDirectory, WritesFilesWholeAndReadsThemBack) {
  const ScratchFolder folder;
  const std::string path = folder / "a/b";
  const RunDirectory directory(path);
  directory.create();
  EXPECT_EQ(directory.read_text("summary.json"), std::nullopt);
  directory.write_text("summary.json", "{}\n");
  directory.write_text("summary.json", "{\"a\":1}\n");
  EXPECT_EQ(directory.read_text("summary.json"), "{\"a\":1}\n");
  EXPECT_FALSE(std::filesystem::exists(path + "/summary.json.new"));
}

TEST(RunDirectory, IsNoOtherModel) {
  const ScratchFolder folder;
  RunDirectory(folder / "nowhere").require_no_model();
  RunDirectory(folder.path()).require_no_model();
  write_file(folder / "hf/config.json", "{}");
  expect_error(ExitCode::usage, {"run.directory = ", folder / "hf", "Hugging Face folder", "set"},
               [&] { RunDirectory(folder / "hf").require_no_model(); });
  write_file(folder / "step/manifest.json", "{}");
  expect_error(ExitCode::usage, {folder / "step", "one checkpoint"},
               [&] { RunDirectory(folder / "step").require_no_model(); });
}

TEST(RunDirectory, AnImpossiblePlaceIsAUsageError) {
  try {
    RunDirectory("/proc/nowhere/run").create();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("run.directory"), std::string::npos);
  }
}

}  // namespace
}  // namespace shoestring
