#include "launcher/model_commands.h"

#include <gtest/gtest.h>

#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

TEST(ModelCommands, HelpHasExamples) {
  for (const char* command : {"train", "generate", "eval", "logits"}) {
    const BinaryResult r = run_binary({command, "--help"});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_NE(r.out.find("shoestring " + std::string(command)), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("Example"), std::string::npos) << r.out;
  }
}

TEST(ModelCommands, MistakesAreUsageErrors) {
  EXPECT_EQ(run_binary({"train"}).exit_code, 2);
  EXPECT_EQ(run_binary({"train", "missing.toml"}).exit_code, 2);
  const BinaryResult trace =
      run_binary({"train", std::string(SHOESTRING_SOURCE_DIR) + "/configs/runs/tiny.toml",
                  "--trace-steps", "5"});
  EXPECT_EQ(trace.exit_code, 2);
  EXPECT_NE(trace.err.find("FIRST:LAST"), std::string::npos) << trace.err;
  const BinaryResult option = run_binary({"generate", "--modle", "x"});
  EXPECT_EQ(option.exit_code, 2);
  EXPECT_NE(option.err.find("--model"), std::string::npos) << option.err;
  EXPECT_EQ(run_binary({"eval", "--model", "missing", "README.md"}).exit_code, 3);
}

}  // namespace
}  // namespace shoestring
