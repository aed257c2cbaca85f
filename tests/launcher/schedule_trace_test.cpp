#include "launcher/schedule_trace.h"

#include <gtest/gtest.h>

#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "tests/launcher/trace_reader.h"

namespace shoestring {
namespace {

using Json = nlohmann::json;

TEST(ScheduleTrace, HasEveryInstructionOfEveryRank) {
  ScratchFolder folder;
  const Schedule schedule = make_schedule({.name = "dualpipe", .ranks = 4, .micros = 8});
  write_schedule_trace(schedule, simulate(schedule, {.fb = 3}), 0, folder / "trace.json");
  const Json trace = Json::parse(read_file(folder / "trace.json"));
  int events = 0;
  bool pair = false;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] != "X" || event["cat"] == "waits") continue;
    ++events;
    if (event["name"] == "0F3&3B5") {
      pair = true;
      EXPECT_EQ(event["dur"], 3000);
    }
  }
  int groups = 0;
  for (const Program& program : schedule.ranks) {
    for (const Instruction& i : program) groups += i.with_next ? 0 : 1;
  }
  EXPECT_EQ(events, groups);
  EXPECT_TRUE(pair);
}

// 1F1B of two ranks and two micro-batches, by hand: what the second waits for at the begin, what
// each waits for in between, and the ways of values, on the rank that sends.
TEST(ScheduleTrace, WaitsAndTransfersHaveLanesOfTheirOwn) {
  ScratchFolder folder;
  for (const bool told : {false, true}) {
    Schedule schedule = make_schedule({.name = "1f1b", .ranks = 2, .micros = 2});
    if (told) schedule = add_transfers(schedule);
    const StepTimes times{.comm = 0.5};
    write_schedule_trace(schedule, simulate(schedule, times), times.comm, folder / "t.json");
    const TraceReader trace(folder / "t.json");
    const auto waits = trace.events(1, "waits");
    ASSERT_EQ(waits.size(), 1u) << told;
    EXPECT_EQ(waits[0]["name"], "input of 1F0");
    EXPECT_EQ(waits[0]["ts"], 0);
    EXPECT_EQ(waits[0]["dur"], 1500);
    EXPECT_EQ(trace.names(0, "waits"),
              (std::vector<std::string>{"gradient of 0B0", "gradient of 0B1"}));
    const auto sent = trace.events(0, "communication activations 0 to 1");
    ASSERT_EQ(sent.size(), 2u) << told;
    EXPECT_EQ(sent[1]["name"], "exchange");
    EXPECT_EQ(sent[1]["args"]["group"], "activations 0 to 1");
    EXPECT_EQ(sent[1]["ts"], 2000);
    EXPECT_EQ(sent[1]["dur"], 500);
    EXPECT_EQ(trace.events(1, "communication gradients 1 to 0").size(), 2u);
    EXPECT_EQ(trace.names(0, "transfers").empty(), !told);
  }
}

}  // namespace
}  // namespace shoestring
