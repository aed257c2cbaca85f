#include "launcher/schedule_command.h"

#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/text.h"
#include "launcher/schedule_times.h"
#include "parallel/schedules/catalogue.h"
#include "tests/io/store_fixture.h"
#include "tests/support/child_process.h"

namespace shoestring {
namespace {

using Json = nlohmann::json;

ScheduleOptions four_ranks(const char* name) {
  return {.name = name, .ranks = 4, .micro_batches = 8};
}

TEST(ScheduleCommand, PairsInPartsHideRows) {
  ScheduleOptions o = four_ranks("1f1b");
  o.segments = "attention,dispatch,experts,combine";
  o.times = "A2A=0.2";
  o.pairs = true;
  const auto exposed = [&](bool whole) {
    o.whole = whole;
    const Schedule schedule = schedule_of(o, true);
    const Json json =
        Json::parse(simulation_json(schedule, simulate(schedule, times_of(o.times, schedule))));
    return json["exposed"][0].get<double>();
  };
  EXPECT_NEAR(exposed(true), 8 * 4 * 0.2, 1e-9);
  EXPECT_LT(exposed(false), exposed(true));
}

TEST(ScheduleCommand, SimulationAsJson) {
  const Schedule schedule = schedule_of(four_ranks("gpipe"));
  const Json json = Json::parse(simulation_json(schedule, simulate(schedule, {})));
  EXPECT_EQ(json["name"], "gpipe");
  EXPECT_EQ(json["ranks"], 4);
  EXPECT_EQ(json["micro_batches"], 8);
  EXPECT_EQ(json["makespan"], 33);
  EXPECT_EQ(json["bubble"], Json({9, 9, 9, 9}));
  EXPECT_EQ(json["window_bubble"], Json({9, 6, 3, 0}));
  EXPECT_EQ(json["peak_activations"], Json({8, 8, 8, 8}));
  const std::string table = simulation_table(schedule, simulate(schedule, {}));
  EXPECT_NE(table.find("gpipe: 4 ranks, 8 micro-batches, makespan 33\n"), std::string::npos)
      << table;
}

TEST(ScheduleCommand, MistakesInRequestsAndFiles) {
  ScratchFolder folder;
  const auto from = [&](const char* text) {
    write_file(folder / "p.txt", text);
    return schedule_of({.name = "", .program_file = folder / "p.txt"});
  };
  expect_error(ExitCode::usage, {"neither --name", "nor --program"}, [] { schedule_of({}); });
  expect_error(ExitCode::usage, {"--name and --program are both given"},
               [] { schedule_of({.name = "1f1b", .program_file = "p.txt"}); });
  expect_error(ExitCode::usage, {"did you mean \"dualpipe\"?"},
               [] { schedule_of(four_ranks("dualpip")); });
  expect_error(ExitCode::data, {"/nowhere/p.txt", "No such file"},
               [] { schedule_of({.name = "", .program_file = "/nowhere/p.txt"}); });
  expect_error(ExitCode::usage, {"cannot run", "rank 0 stops at 0B0"},
               [&] { simulate(from("0B0 0F0\n1F0 1B0\n"), {}); });
  // Before a pass makes another program of it, whose places nobody has written.
  expect_error(ExitCode::usage, {"p.txt:1:1: rank 0 stops at 0B0"}, [&] {
    write_file(folder / "p.txt", "0B0 0F0\n1F0 1B0\n");
    schedule_of({.name = "", .program_file = folder / "p.txt"}, true);
  });
}

std::string compared(const ScheduleOptions& sizes, const std::vector<std::string>& names,
                     bool json) {
  ScratchFolder folder;
  const std::string path = folder / "lines.txt";
  std::FILE* lines = std::fopen(path.c_str(), "w");
  ProgressLine progress(lines);
  try {
    print_comparison(sizes, names, json, progress);
  } catch (...) {
    std::fclose(lines);
    EXPECT_EQ(read_file(path), "");  // refused before the first line
    throw;
  }
  std::fclose(lines);
  return read_file(path);
}

TEST(ScheduleCommand, OptionsThatAnOrderIgnoresAreRefused) {
  ScheduleOptions o = four_ranks("1f1b");
  o.chunks = 2;
  expect_error(ExitCode::usage, {"--chunks has no effect on 1f1b", "interleaved-1f1b"},
               [&] { schedule_of(o); });
  expect_error(ExitCode::usage, {"--chunks"}, [&] { compared(o, {"1f1b", "zb-v"}, false); });
  EXPECT_NE(compared(o, {}, false), "");
  o.name = "interleaved-1f1b";
  EXPECT_EQ(schedule_of(o).where.chunks, 2);
  o.memory_limit = 4;
  expect_error(ExitCode::usage, {"--memory-limit has no effect on interleaved-1f1b", "automatic"},
               [&] { schedule_of(o); });
  o = four_ranks("automatic");
  o.memory_limit = 4;
  EXPECT_EQ(schedule_of(o).where.ranks, 4);
  ScratchFolder folder;
  write_file(folder / "p.txt", "0F0 0B0\n");
  o.name = "", o.program_file = folder / "p.txt";
  expect_error(ExitCode::usage, {"--memory-limit has no effect on the program"},
               [&] { schedule_of(o); });
  o = {};
  o.program_file = folder / "p.txt";
  EXPECT_EQ(schedule_of(o).where.ranks, 1);
  o.ranks = 1, o.micro_batches = 1;  // what it is
  EXPECT_EQ(schedule_of(o).where.ranks, 1);
  o.ranks = 7;
  expect_error(ExitCode::usage, {"--ranks is 7, but the program", "p.txt has 1"},
               [&] { schedule_of(o); });
  o.ranks.reset(), o.micro_batches = 8;
  expect_error(ExitCode::usage, {"--micro-batches is 8, but the program", "p.txt has 1"},
               [&] { schedule_of(o); });
}

// Of every order, and before the first of a comparison.
TEST(ScheduleCommand, OptionsOfSegmentsWithoutSegmentsAreRefused) {
  ScheduleOptions o = four_ranks("1f1b");
  o.whole = true;
  const auto refused = [&](const std::vector<std::string>& parts) {
    expect_error(ExitCode::usage, parts, [&] { schedule_of(o); });
    expect_error(ExitCode::usage, parts, [&] { compared(o, {"1f1b"}, false); });
  };
  refused({"--whole has no effect without --segments"});
  o.whole = false, o.times = "F=1,A2A=0.5";
  refused({"\"A2A=0.5\" has no effect without --segments"});
  o.segments = "attention,experts";
  refused({"\"A2A=0.5\" has no effect on these --segments", "dispatch or combine"});
  o.segments = "attention,dispatch,experts,combine", o.whole = true;
  EXPECT_EQ(schedule_of(o).where.ranks, 4);
}

// A reader has each line before the next schedule is looked at: the catalogue's first comes while
// others are simulated, which an interrupt then cuts short.
TEST(ScheduleCommand, ComparisonComesLineByLineAndCanBeInterrupted) {
  ScratchFolder folder;
  const std::string path = folder / "told.txt";
  ChildProcess child(
      {binary_path(), "schedule", "compare", "--ranks", "64", "--micro-batches", "1024"},
      {.output = path});
  const auto told = [&] { return read_file(path); };
  ASSERT_TRUE(child.wait_until([&] { return told().find("\ngpipe ") != std::string::npos; }));
  child.signal(SIGINT);
  EXPECT_EQ(child.wait(), 128 + SIGINT) << told();
  EXPECT_EQ(told().find("\ndualpipev "), std::string::npos) << told();
}

TEST(ScheduleCommand, ComparesAllAndSaysWhatSizesForbid) {
  ScheduleOptions sizes{.ranks = 3, .micro_batches = 9};
  const std::string table = compared(sizes, {}, false);
  for (const ScheduleEntry& entry : schedule_entries()) {
    EXPECT_NE(table.find("\n" + entry.name), std::string::npos) << entry.name;
  }
  EXPECT_NE(table.find("dualpipe needs an even number of ranks"), std::string::npos) << table;
  const Json json = Json::parse(compared(sizes, {"1f1b", "dualpipe"}, true));
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["makespan"], 33);
  EXPECT_EQ(json[0]["peak_activations"], 3);
  EXPECT_TRUE(json[1].contains("reason"));
  expect_error(ExitCode::usage, {"\"nothing\""}, [&] {
    compared(sizes, {"1f1b", "nothing"}, false);
  });
  EXPECT_EQ(Json::parse(schedule_list_json()).size(), schedule_entries().size());
}

}  // namespace
}  // namespace shoestring
