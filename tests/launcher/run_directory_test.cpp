#include "launcher/run_directory.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(RunDirectory, WritesFilesWholeAndReadsThemBack) {
  const auto path = std::filesystem::temp_directory_path() / "shoestring_run_directory" / "a";
  std::filesystem::remove_all(path.parent_path());
  const RunDirectory directory(path.string());
  directory.create();
  EXPECT_EQ(directory.read_text("summary.json"), std::nullopt);
  directory.write_text("summary.json", "{}\n");
  directory.write_text("summary.json", "{\"a\":1}\n");
  EXPECT_EQ(directory.read_text("summary.json"), "{\"a\":1}\n");
  EXPECT_FALSE(std::filesystem::exists(path / "summary.json.new"));
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
