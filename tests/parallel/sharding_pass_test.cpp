#include "parallel/sharding_pass.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "core/text.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/sharding_checks.h"
#include "parallel/simulate.h"

namespace shoestring {
namespace {

Schedule two_ranks(const char* name = "1f1b", int micros = 2) {
  return make_schedule({.name = name, .ranks = 2, .micros = micros});
}

TEST(AddSharding, PutsGathersAheadAndReductionsBehind) {
  const Schedule s = add_sharding(two_ranks(), {.hold = 0});
  EXPECT_EQ(schedule_text(s),
            "0G0 0F0 0R0 0G1 0F1 0R1 0G0 0B0 0R0 0S0 0G1 0B1 0R1 0S1\n"
            "1G0 1F0 1R0 1G0 1B0 1R0 1S0 1G1 1F1 1R1 1G1 1B1 1R1 1S1\n");
  EXPECT_EQ(schedule_text(add_sharding(two_ranks(), {.hold = 1})),
            "0G0 0F0 0F1 0B0 0S0 0B1 0R1 0S1\n1G0 1F0 1B0 1S0 1F1 1B1 1R1 1S1\n");
  EXPECT_EQ(schedule_text(add_sharding(
                two_ranks("zb-h1"), {.hold = ShardingOptions::whole_step, .reduce_each = false})),
            "0G0 0F0 0F1 0I0 0W0 0I1 0R1 0W1 0S1\n1G0 1F0 1I0 1F1 1I1 1R1 1W0 1W1 1S1\n");
  EXPECT_EQ(schedule_text(add_sharding(two_ranks(), {.gather = false})),
            "0F0 0F1 0B0 0S0 0B1 0S1\n1F0 1B0 1S0 1F1 1B1 1S1\n");
}

// Every order, with and without transfers: it runs, takes as long, and keeps its text.
TEST(AddSharding, ChangesNothingElse) {
  for (const ScheduleEntry& entry : schedule_entries()) {
    for (const bool transfers : {false, true}) {
      Schedule plain = make_schedule({.name = entry.name, .ranks = 4, .micros = 8});
      if (transfers) plain = add_transfers(plain);
      for (const int hold : {0, 2, ShardingOptions::whole_step}) {
        const Schedule s = add_sharding(plain, {.ahead = 2, .hold = hold});
        EXPECT_EQ(complaints_of(s), std::vector<std::string>()) << entry.name << hold;
        EXPECT_EQ(parse_programs(schedule_text(s), "text"), s.ranks) << entry.name;
        const StepTimes times{.f = 1, .i = 1.5, .w = 0.5, .comm = 0.3};
        EXPECT_NEAR(simulate(s, times).makespan, simulate(plain, times).makespan, 1e-9);
        if (!transfers) {
          EXPECT_EQ(complaints_of(add_transfers(s)), std::vector<std::string>());
        }
      }
    }
  }
}

// Of one micro-batch at a time with a whole rank's weights, of v chunks one of v; kept, all.
TEST(AddSharding, TheSimulatorCountsWhatIsKept) {
  const auto peak = [](const char* name, const ShardingOptions& options) {
    const Schedule s = make_schedule({.name = name, .ranks = 4, .micros = 8});
    return simulate(add_sharding(s, options), {}).ranks[0];
  };
  EXPECT_EQ(peak("1f1b", {.ahead = 0, .hold = 0}).peak_weights, 1);
  EXPECT_EQ(peak("zb-v", {.ahead = 0, .hold = 0}).peak_weights, 0.5);
  EXPECT_EQ(peak("zb-v", {.hold = ShardingOptions::whole_step}).peak_weights, 1);
  EXPECT_EQ(peak("zb-v", {}).peak_gradients, 0.5);
  EXPECT_EQ(peak("zb-v", {.reduce_each = false}).peak_gradients, 1);
  EXPECT_EQ(peak("1f1b", {.gather = false}).peak_weights, 0);
}

TEST(AddSharding, RefusesWhatCannotRun) {
  Schedule s = two_ranks();
  EXPECT_THROW(add_sharding(add_sharding(s, {}), {}), Error);
  std::swap(s.ranks[0][0], s.ranks[0][2]);
  EXPECT_THROW(add_sharding(s, {}), Error);
}

}  // namespace
}  // namespace shoestring
