#include "launcher/data_commands.h"

#include <CLI/CLI.hpp>

#include "tests/io/store_fixture.h"
#include "tests/support/run_binary.h"

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
  EXPECT_NE(run_line(cat("data inspect --verify ", file)).find("index and 1 chunk\n"),
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

TEST(DataCommands, ThreadsAreAtLeastOne) {
  ScratchFolder folder;
  const std::string tokenizer = SHOESTRING_SOURCE_DIR "/tests/data/tiny/tokenizer.json";
  write_file(folder / "a.txt", "Anne");
  for (const char* threads : {"-3", "0", "4097", "99999999999999999999", "two"}) {
    const BinaryResult result =
        run_binary({"data", "pack", folder / "a.txt", "--tokenizer", tokenizer, "--out",
                    folder / "a.h5", "--threads", threads});
    EXPECT_EQ(result.exit_code, 2) << threads;
    EXPECT_NE(result.err.find("--threads"), std::string::npos) << result.err;
    EXPECT_FALSE(std::filesystem::exists(folder / "a.h5.packing"));
  }
  EXPECT_EQ(run_binary({"data", "pack", folder / "a.txt", "--tokenizer", tokenizer, "--out",
                        folder / "a.h5", "--threads", "3"})
                .exit_code,
            0);
}

TEST(DataCommands, SayWhatElseMayBeDoneWithBadText) {
  ScratchFolder folder;
  const std::string tokenizer = SHOESTRING_SOURCE_DIR "/tests/data/tiny/tokenizer.json";
  write_file(folder / "a.txt", "good \xff bad");
  const BinaryResult pack = run_binary(
      {"data", "pack", folder / "a.txt", "--tokenizer", tokenizer, "--out", folder / "a.h5"});
  EXPECT_EQ(pack.exit_code, 3);
  EXPECT_NE(pack.err.find("a.txt: bad UTF-8 at byte 5: 0xff"), std::string::npos) << pack.err;
  EXPECT_NE(pack.err.find("--bad-utf8 replace"), std::string::npos) << pack.err;
  const BinaryResult train =
      run_binary({"data", "train-tokenizer", folder / "a.txt", "--out", folder / "tok"});
  EXPECT_EQ(train.exit_code, 3);
  EXPECT_NE(train.err.find("a.txt: bad UTF-8 at byte 5: 0xff"), std::string::npos) << train.err;
  EXPECT_NE(train.err.find("--bad-utf8 replace"), std::string::npos) << train.err;
}

}  // namespace
}  // namespace shoestring
