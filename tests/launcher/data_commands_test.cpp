#include "launcher/data_commands.h"

#include <CLI/CLI.hpp>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

// Runs a line as the program would; the output goes to a capture of standard output.
std::string run_line(const std::string& line) {
  CLI::App app;
  CommandAction action;
  add_data_commands(app, action);
  app.parse(line);
  ::testing::internal::CaptureStdout();
  const int code = action();
  EXPECT_EQ(code, 0);
  return ::testing::internal::GetCapturedStdout();
}

TEST(DataCommands, InspectReadsItsOptions) {
  ScratchFolder folder;
  make_store(folder / "a.h5", {{1, 2, 3}, {4}}, plain_facts());
  const std::string file = folder / "a.h5";
  EXPECT_NE(run_line(cat("data inspect --verify ", file)).find("index and all 1 chunks"),
            std::string::npos);
  EXPECT_EQ(run_line(cat("data inspect ", file, " --document 1")),
            "{\"document\":1,\"text_bytes\":3,\"ids\":[4]}\n");
}

TEST(DataCommands, PackNeedsTokenizerAndOutput) {
  CLI::App app;
  CommandAction action;
  add_data_commands(app, action);
  EXPECT_THROW(app.parse("data pack a.txt --out b.h5"), CLI::RequiredError);
  EXPECT_THROW(app.parse("data pack a.txt --tokenizer t.json"), CLI::RequiredError);
  EXPECT_THROW(app.parse("data"), CLI::RequiredError);
}

}  // namespace
}  // namespace shoestring
