#include "launcher/schedule_rehearsal.h"

#include <gtest/gtest.h>

#include <map>

#include "core/check.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(ScheduleRehearsal, SaysWhatTheEngineAddsToTheSimulation) {
  const Schedule schedule = make_schedule({.name = "zb-h1", .ranks = 3, .micros = 6});
  std::map<std::string, Measurement> rows;
  for (const Measurement& row : rehearse_in_threads(schedule, {.seconds_per_unit = 2e-3})) {
    rows[row.name] = row;
  }
  const double simulated = simulate(schedule, {}).makespan * 2e-3;
  EXPECT_DOUBLE_EQ(rows.at("simulated_seconds").value, simulated);
  EXPECT_GE(rows.at("makespan_seconds").value, 0.999 * simulated);
  EXPECT_DOUBLE_EQ(rows.at("over_simulation").value, rows.at("makespan_seconds").value / simulated);
  EXPECT_EQ(rows.at("over_simulation").goal, 1.05);
  EXPECT_EQ(rows.at("over_simulation").met(), rows.at("over_simulation").value <= 1.05);
  // The last rank waits for the first's forward passes.
  EXPECT_GE(rows.at("longest_wait_seconds").value, 2 * 2e-3 * 0.9);
  EXPECT_GT(rows.at("overhead_per_instruction_seconds").value, 0);
}

TEST(ScheduleRehearsal, SaysHowMuchOfTheRowsIsExposed) {
  Schedule schedule = make_schedule({.name = "1f1b", .ranks = 2, .micros = 4});
  schedule = add_transfers(std::move(schedule));
  schedule.segments.assign(2, parse_segments("attention,dispatch,experts"));
  RehearsalOptions options{.seconds_per_unit = 2e-3};
  options.times.segments.fill({1, 1, 1});
  options.times.segments[static_cast<size_t>(SegmentKind::dispatch)] = {2, 2, 0};
  std::map<std::string, Measurement> rows;
  for (const Measurement& row : rehearse_in_threads(schedule, options)) rows[row.name] = row;
  const double expected = 16.0 / simulate(schedule, options.times).makespan;
  EXPECT_DOUBLE_EQ(rows.at("simulated_exposed_share").value, expected);
  EXPECT_GT(rows.at("exposed_share").value, 0.5 * expected);
  EXPECT_EQ(rows.at("exposed_share").goal, std::nullopt);  // whole passes hide nothing
  options.times.segments[static_cast<size_t>(SegmentKind::dispatch)] = {};
  for (const Measurement& row : rehearse_in_threads(schedule, options)) rows[row.name] = row;
  EXPECT_EQ(rows.at("exposed_share").goal, 0.05);
  EXPECT_TRUE(rows.at("exposed_share").at_most);
  expect_error(ExitCode::usage, {"--expert-ranks is 1", "at least 2"},
               [&] { rehearse_in_threads(schedule, options, 1); });
}

TEST(ScheduleRehearsal, TellsItsSizeFirstAndHasALimit) {
  const auto schedule = [](int ranks) {
    return make_schedule({.name = "1f1b", .ranks = ranks, .micros = 1});
  };
  int threads = 0;
  double seconds = 0;
  const RehearsalTold tell = [&](const RehearsalPlan& plan) {
    threads = plan.threads, seconds = plan.seconds;
    fail("before a thread starts");
  };
  const auto plan_of = [&](int ranks, const RehearsalOptions& options, int expert_ranks) {
    EXPECT_THROW(rehearse_in_threads(schedule(ranks), options, expert_ranks, tell), Error);
  };
  plan_of(512, {.seconds_per_unit = 1e-3}, 2);
  EXPECT_EQ(threads, 512);
  EXPECT_NEAR(seconds, 512 * 3e-3, 1e-9);
  expect_error(ExitCode::usage, {"513 ranks needs 513 threads", "at most 512", "simulate"},
               [&] { rehearse_in_threads(schedule(513), {}, 2, tell); });
  Schedule routed = schedule(200);
  routed.segments.assign(200, parse_segments("attention,dispatch,experts"));
  expect_error(ExitCode::usage, {"200 ranks x 3 of --expert-ranks needs 600 threads"},
               [&] { rehearse_in_threads(routed, {}, 3, tell); });
}

}  // namespace
}  // namespace shoestring
