#include "launcher/schedule_program.h"

#include <string>

#include "core/check.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/simulate.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

// What show prints is a program for every other command, wherever its stages stand.
TEST(ScheduleProgram, ProgramsFromFilesRunAsTheirOrders) {
  ScratchFolder folder;
  for (const ScheduleEntry& entry : schedule_entries()) {
    const Schedule schedule = make_schedule({.name = entry.name, .ranks = 4, .micros = 8});
    write_file(folder / "program.txt", schedule_text(schedule));
    const Schedule again = schedule_of_file(folder / "program.txt");
    EXPECT_EQ(again.ranks, schedule.ranks) << entry.name;
    const StepTimes times{.f = 1, .i = 1.5, .w = 0.5, .comm = 0.25};
    EXPECT_EQ(simulate(again, times).makespan, simulate(schedule, times).makespan) << entry.name;
    EXPECT_EQ(simulate(again, times).ranks[1].peak_activations,
              simulate(schedule, times).ranks[1].peak_activations)
        << entry.name;
  }
}

class Programs : public testing::Test {
 protected:
  Schedule from(const std::string& text) {
    write_file(folder_ / "p.txt", text);
    return schedule_of_file(folder_ / "p.txt");
  }
  ScratchFolder folder_;
};

TEST_F(Programs, MistakesAreToldWithTheirPlace) {
  expect_error(ExitCode::usage, {"p.txt:2:5", "1X0"}, [&] { from("0F0 0B0\n1F0 1X0\n"); });
  expect_error(ExitCode::usage, {"3 stages on 2 ranks"}, [&] { from("0F0 2F0\n1F0\n"); });
  expect_error(ExitCode::usage, {"no instructions"}, [&] { from("# nothing\n"); });
}

// Memory for all the passes that the numbers ask for would be some hundred gigabytes.
TEST_F(Programs, ANumberFarBeyondTheRestIsRefusedWithItsPlace) {
  expect_error(ExitCode::usage,
               {"p.txt:3:9: \"0F32767\" makes it 1 stage and 32768 micro-batches",
                "there are 3 instructions in all", "without gaps"},
               [&] { from("# 0F32767\n\n0F0 0B0 0F32767\n"); });
  expect_error(ExitCode::usage, {"p.txt:1:5: \"32767F32767\" makes it 32768 stages and 32768"},
               [&] { from("0F0&32767F32767\n"); });
  expect_error(ExitCode::usage, {"p.txt:1:9: \"32000B0\" makes it 32001 stages and 1 micro-batch,"},
               [&] { from("0F0 0B0 32000B0\n"); });
  expect_error(ExitCode::usage,
               {"p.txt:1:5: \"0B32768\"", "number of a micro-batch", "is above 32767"},
               [&] { from("0F0 0B32768\n"); });
  expect_error(ExitCode::usage, {"p.txt:1:1", "its number of a stage in front is above 32767"},
               [&] { from("99999999999999999999F0\n"); });
}

// The lines of ranks 0 and 1 of three.
TEST_F(Programs, ALineThatIsMissingIsAskedFor) {
  expect_error(ExitCode::usage,
               {"p.txt: 3 stages on 2 ranks", "no line has an instruction of stage 1;", "missing"},
               [&] { from("0F0 0I0 0W0\n2F0 2I0 2W0\n"); });
  expect_error(ExitCode::usage, {"p.txt:1:5: rank 0, 1B0 (number 2)", "this one belongs on rank 1"},
               [&] { from("0F0 1B0\n1F0 0B0\n2F0 2B0\n"); });
}

// With line and column, and nothing but what is missing.
TEST_F(Programs, MissingInstructionsAreNamedWithTheLinesOfAllTheirRanks) {
  const std::string told = expect_error(
      ExitCode::usage, {"p.txt:2: rank 0: there is no 0B0", "p.txt:3: rank 1: there is no 1F1"},
      [&] { simulate(from("# two\n0F0 0F1 0B1\n1F0 1B0 1B1\n"), {}); });
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 2) << told;
  expect_error(ExitCode::usage, {"p.txt:1:1: rank 0 stops at 0B0 (number 1)"},
               [&] { simulate(from("0B0 0F0\n1F0 1B0\n"), {}); });
}

// What is missing is named one by one, but not thousands of times.
TEST_F(Programs, ManyMissingPassesAreNamedInAFewLines) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "0F" + std::to_string(i) + " ";
  const std::string told = expect_error(ExitCode::usage, {"cannot run", "and 10 more"},
                                        [&] { simulate(from(text), {}); });
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 21) << told;
}

}  // namespace
}  // namespace shoestring
