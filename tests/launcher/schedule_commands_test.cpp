#include "launcher/schedule_commands.h"

#include "launcher/command_line.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

std::string printed(const std::vector<std::string>& arguments) {
  testing::internal::CaptureStdout();
  const int code = run_command_line(arguments);
  std::string text = testing::internal::GetCapturedStdout();
  EXPECT_EQ(code, 0) << text;
  return text;
}

// Sizes that make it short; what it measures is the rehearsal's own test's. The exit code is the
// verdict: of a hundredth of a millisecond the engine's own time is a multiple.
std::string rehearsed(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"schedule", "rehearse"});
  testing::internal::CaptureStdout();
  const int code = run_command_line(arguments);
  std::string text = testing::internal::GetCapturedStdout();
  const bool missed = text.find("\"met\": false") != std::string::npos ||
                      text.find(", missed)") != std::string::npos;
  EXPECT_EQ(code, missed ? 1 : 0) << text;
  return text;
}

TEST(ScheduleCommands, ShowListDrawSimulateCompare) {
  ScratchFolder folder;
  EXPECT_EQ(
      printed({"schedule", "show", "--name", "zb-h1", "--ranks", "2", "--micro-batches", "2"}),
      "0F0 0F1 0I0 0W0 0I1 0W1\n1F0 1I0 1F1 1I1 1W0 1W1\n");
  EXPECT_NE(printed({"schedule", "list"}).find("dualpipev"), std::string::npos);
  const std::string svg = folder / "a.svg";
  printed({"schedule", "draw", "--name", "dualpipe", "--ranks", "4", "--out", svg});
  EXPECT_NE(read_file(svg).find("</svg>"), std::string::npos);
  printed({"schedule", "draw", "--name", "zb-v", "--out", svg});  // a picture may be replaced
  const std::string json = printed({"schedule", "simulate", "--name", "1f1b", "--times",
                                    "F=1,I=1,W=1,comm=0", "--json", "--trace", folder / "t.json"});
  EXPECT_NE(json.find("\"makespan\": 33.0"), std::string::npos) << json;
  EXPECT_NE(read_file(folder / "t.json").find("traceEvents"), std::string::npos);
  const std::string table = printed({"schedule", "compare", "--names", "1f1b,zb-h1"});
  EXPECT_NE(table.find("1f1b"), std::string::npos);
  EXPECT_EQ(table.find("gpipe"), std::string::npos);
}

TEST(ScheduleCommands, Mistakes) {
  const auto mistake = [](const std::string& hint, const std::vector<std::string>& arguments) {
    expect_error(ExitCode::usage, {hint}, [&] { run_command_line(arguments); });
  };
  mistake("did you mean", {"schedule", "show", "--name", "zb-h3"});
  mistake("--out", {"schedule", "draw", "--name", "zb-h1"});
  mistake("--unit-ms", {"schedule", "rehearse", "--name", "zb-h1", "--unit-ms", "0"});
  mistake("--expert-ranks has no effect without --segments",
          {"schedule", "rehearse", "--name", "zb-h1", "--expert-ranks", "2"});
  mistake("--whole has no effect",
          {"schedule", "draw", "--name", "zb-h1", "--whole", "--out", "/nowhere/a.svg"});
  ScratchFolder folder;
  write_file(folder / "p.txt", "0F0 0B0\n");
  mistake("p.txt exists and is no SVG picture",
          {"schedule", "draw", "--name", "zb-h1", "--out", folder / "p.txt"});
  EXPECT_EQ(read_file(folder / "p.txt"), "0F0 0B0\n");
  mistake("--micro-batches must be a whole number but is '8.5'",
          {"schedule", "draw", "--name", "zb-h1", "--micro-batches", "8.5", "--out", "-"});
  mistake("--unit-ms must be a number but is 'fast'",
          {"schedule", "rehearse", "--name", "zb-h1", "--unit-ms", "fast"});
  mistake("--ranks is 2, but the program",
          {"schedule", "simulate", "--program", folder / "p.txt", "--ranks", "2"});
}

TEST(ScheduleCommands, HelpSaysEachDefaultOnce) {
  for (const char* name : {"show", "rehearse", "draw", "simulate", "compare"}) {
    const std::string help = printed({"schedule", name, "--help"});
    size_t times = 0;
    for (size_t at = 0; (at = help.find("F=1,I=1,W=1,comm=0", at)) != help.npos; ++at) ++times;
    EXPECT_EQ(times, 1u) << help;
    EXPECT_NE(help.find("--ranks P=4 "), std::string::npos) << help;
    EXPECT_NE(help.find("--micro-batches M=8 "), std::string::npos) << help;
  }
}

// The 1f1b beside a program from a file is as large as that.
TEST(ScheduleCommands, RehearseBesideAProgram) {
  ScratchFolder folder;
  write_file(folder / "p.txt", "0F0 0F1 0F2 0B0 0B1 0B2\n1F0 1B0 1F1 1B1 1F2 1B2\n");
  const std::string table =
      rehearsed({"--program", folder / "p.txt", "--unit-ms", "1", "--beside-1f1b"});
  EXPECT_NE(table.find("\nrehearsing 1f1b: 2 ranks, 3 micro-batches, on 2 threads, "),
            std::string::npos)
      << table;
}

TEST(ScheduleCommands, RehearseEndsWithTheVerdict) {
  const std::string rows = rehearsed(
      {"--name", "1f1b", "--ranks", "2", "--micro-batches", "2", "--unit-ms", "1", "--json"});
  EXPECT_NE(rows.find("\"over_simulation\""), std::string::npos) << rows;
  const std::string table =
      rehearsed({"--name", "1f1b", "--ranks", "2", "--micro-batches", "2", "--unit-ms", "0.01"});
  EXPECT_TRUE(
      table.starts_with("rehearsing 1f1b: 2 ranks, 2 micro-batches, on 2 threads, 0.0 s by "
                        "the simulation\n"))
      << table;
  EXPECT_NE(table.find(", missed)"), std::string::npos) << table;
}

TEST(ScheduleCommands, Transfers) {
  EXPECT_EQ(printed({"schedule", "show", "--name", "gpipe", "--ranks", "2", "--micro-batches", "1",
                     "--transfers"}),
            "0RG0 0F0 0SA0 0B0\n1RA0 1F0 1B0 1SG0\n");
}

TEST(ScheduleCommands, Segments) {
  const std::vector<std::string> rest = {"--ranks", "2",          "--micro-batches",
                                         "4",       "--segments", "attention,dispatch,experts",
                                         "--times", "A2A=0.5"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    return printed(arguments);
  };
  const std::string program = with({"schedule", "show", "--name", "dualpipe"});
  EXPECT_NE(program.find("0I2.1~"), std::string::npos) << program;
  EXPECT_EQ(with({"schedule", "show", "--name", "dualpipe", "--whole"}).find('~'),
            std::string::npos);
  EXPECT_NE(with({"schedule", "show", "--name", "1f1b", "--pairs"}).find('~'), std::string::npos);
  std::vector<std::string> words = {"--name", "dualpipe",      "--unit-ms",
                                    "2",      "--beside-1f1b", "--json"};
  words.insert(words.end(), rest.begin(), rest.end());
  const std::string rows = rehearsed(words);
  for (const char* name :
       {"\"exposed_share\"", "\"1f1b_exposed_share\"", "\"1f1b_makespan_seconds\""}) {
    EXPECT_NE(rows.find(name), std::string::npos) << rows;
  }
  ScratchFolder folder;
  with({"schedule", "draw", "--name", "dualpipe", "--out", folder / "a.svg"});
  EXPECT_NE(read_file(folder / "a.svg").find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
