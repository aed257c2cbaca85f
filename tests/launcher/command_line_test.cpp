#include "launcher/command_line.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "core/check.h"
#include "core/text.h"
#include "tests/support/child_process.h"
#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

void expect_usage(const std::vector<std::string>& arguments, const std::string& message) {
  BinaryResult result = run_binary(arguments);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err, "error: " + message + "\n");
}

TEST(CommandLine, HelpAndVersion) {
  BinaryResult help = run_binary({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_EQ(help.err, "");
  EXPECT_NE(help.out.find("Usage: shoestring [OPTIONS] SUBCOMMAND"), std::string::npos);
  EXPECT_NE(help.out.find("\n  config "), std::string::npos);
  BinaryResult nested = run_binary({"config", "show", "--help"});
  EXPECT_EQ(nested.exit_code, 0);
  EXPECT_NE(nested.out.find("Usage: shoestring config show [OPTIONS]"), std::string::npos);
  EXPECT_NE(nested.out.find("Examples:"), std::string::npos);
  EXPECT_EQ(run_binary({"--version"}).out.substr(0, 11), "shoestring ");
}

// Commands and what they may end with; groups of commands list their commands.
TEST(CommandLine, HelpListsExitCodes) {
  const std::string usual = "2 usage or config, 3 data, 4 fault";
  const std::pair<std::vector<std::string>, std::string> commands[] = {
      {{"parity"}, cat("0 done, 1 a layout misses its limits, ", usual, "\n")},
      {{"schedule", "rehearse"}, cat("0 done, 1 a goal is missed, ", usual, "\n")},
      {{"train"}, cat("0 done, ", usual, ", 75 preempted")},
      {{"schedule", "compare"}, cat("0 done, ", usual, "\n")},
      {{"mesh"}, cat("0 done, ", usual, "\n")},
      {{"data", "pack"}, cat("0 done, ", usual, "\n")}};
  for (auto [words, codes] : commands) {
    words.emplace_back("--help");
    const std::string help = run_binary(words).out;
    EXPECT_NE(help.find(cat("\nExit codes: ", codes)), std::string::npos) << help;
  }
  EXPECT_NE(run_binary({"--help"}).out.find("1 a comparison outside its limits"),
            std::string::npos);
  EXPECT_EQ(run_binary({"schedule", "--help"}).out.find("Exit codes"), std::string::npos);
}

// A full disk behind standard output is a data error, not a silent success.
TEST(CommandLine, OutputThatIsNotWrittenIsAnError) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"config", "show"},
                                                {"config", "docs"},
                                                {"--help"},
                                                {"--version"}}) {
    std::vector<std::string> command = {binary_path()};
    command.insert(command.end(), words.begin(), words.end());
    EXPECT_EQ(ChildProcess(command, {.output = "/dev/full"}).wait(), 3) << words[0];
  }
}

TEST(CommandLine, HelpShowsDefaults) {
  const std::string generate = run_binary({"generate", "--help"}).out;
  for (const char* option : {"--max-tokens", "--temperature", "--top-k", "--top-p", "--min-p",
                             "--repetition-penalty", "--seed"}) {
    const size_t at = generate.find(cat("  ", option, " "));
    ASSERT_NE(at, std::string::npos) << option;
    const std::string line = generate.substr(at, generate.find('\n', at) - at);
    EXPECT_NE(line.find_first_of("=["), std::string::npos) << line;
  }
  EXPECT_NE(run_binary({"eval", "--help"}).out.find("--micro-batch N=4 "), std::string::npos);
}

TEST(CommandLine, UnknownCommandsNameTheNearest) {
  expect_usage({"confg"}, "unknown command 'confg'; did you mean 'config'?\nsee shoestring --help");
  expect_usage({"config", "shw"},
               "unknown command 'shw'; did you mean 'show'?\nsee shoestring config --help");
  expect_usage({"frobnicate"}, "unknown command 'frobnicate'\nsee shoestring --help");
}

TEST(CommandLine, UnknownOptionsNameTheNearest) {
  expect_usage({"config", "show", "--sett", "a=b"},
               "unknown option '--sett'; did you mean '--set'?\nsee shoestring config show --help");
  expect_usage({"config", "show", "--coments=1"},
               "unknown option '--coments'; did you mean '--comments'?\nsee shoestring config show "
               "--help");
}

// Behind an option that wants a value, a word with dashes is the value, unless it is an option.
TEST(CommandLine, ValuesMayBeginWithDashes) {
  const BinaryResult value = run_binary({"config", "show", "--set", "--run.seed=3"});
  EXPECT_EQ(value.exit_code, 2);
  EXPECT_NE(value.err.find("unknown key '--run'"), std::string::npos) << value.err;
  expect_usage({"config", "show", "--set", "--comments"},
               "--set needs a value, but --comments follows, an option itself; if it is meant as "
               "the value, write --set=--comments\nsee shoestring config show --help");
  EXPECT_EQ(run_binary({"config", "show", "--comments", "--set", "run.seed=3"}).exit_code, 0);
  EXPECT_EQ(run_binary({"config", "show", "--", "--set", "run.seed=3"}).exit_code, 2);
}

TEST(CommandLine, MissingParts) {
  expect_usage({"config"},
               "a command is missing; there are show diff schema docs\nsee shoestring config "
               "--help");
  BinaryResult nothing = run_binary({});
  EXPECT_EQ(nothing.exit_code, 2);
  EXPECT_EQ(nothing.err.find("error: a command is missing; there are "), 0u);
  EXPECT_EQ(run_binary({"config", "show", "--set"}).exit_code, 2);
  EXPECT_EQ(run_binary({"config", "diff", "one"}).exit_code, 2);
  EXPECT_EQ(run_binary({"config", "show", "a", "b"}).exit_code, 2);
}

TEST(CommandLine, ErrorsBecomeExitCodes) {
  EXPECT_EQ(report_errors([] { return 75; }), 75);
  EXPECT_EQ(report_errors([]() -> int { fail_usage("x"); }), 2);
  EXPECT_EQ(report_errors([]() -> int { fail_data("x"); }), 3);
  EXPECT_EQ(report_errors([]() -> int { fail("x"); }), 4);
  EXPECT_EQ(report_errors([]() -> int { throw std::bad_alloc(); }), 4);
  EXPECT_EQ(report_errors([]() -> int { throw std::runtime_error("x"); }), 4);
}

TEST(CommandLine, FaultsNameTheirSourceLine) {
  testing::internal::CaptureStderr();
  report_errors([]() -> int { fail("it broke"); });
  std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.find("error: it broke ("), 0u) << text;
  EXPECT_NE(text.find("launcher/command_line_test.cpp:"), std::string::npos) << text;
}

}  // namespace
}  // namespace shoestring
