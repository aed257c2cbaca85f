#include "parallel/schedules/greedy.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

const Placement two_ranks = {.order = StageOrder::loop, .ranks = 2, .chunks = 1, .micros = 3};

// Whatever is there: backward before forward, weights last.
GreedyClock::Choice any(const GreedyClock& clock, int rank) {
  for (Do what : {Do::I, Do::F}) {
    const auto next = clock.next(rank, what, 0);
    if (next && clock.ready(*next) <= clock.now()) return {.run = next};
  }
  return {.run = clock.owed(rank)};
}

TEST(Greedy, MakesAProgramThatRunsAsItWasTimed) {
  const StepTimes times{.f = 1, .i = 2, .w = 1, .comm = 0.5};
  GreedyClock clock(two_ranks, times);
  Schedule schedule{.name = "any", .where = two_ranks, .ranks = clock.run(any)};
  EXPECT_EQ(program_text(schedule.ranks[0]), "0F0 0F1 0F2 0I0 0W0 0I1 0W1 0I2 0W2");
  EXPECT_EQ(program_text(schedule.ranks[1]), "1F0 1I0 1F1 1I1 1F2 1I2 1W0 1W1 1W2");
  EXPECT_EQ(complaints_of(schedule), std::vector<std::string>());
  const Simulation result = simulate(schedule, times);
  EXPECT_EQ(result.ranks[0].start[3], 5);  // 1F0 from 1.5 on, 1I0 ends at 4.5
  EXPECT_EQ(clock.kept(0), 0);
  EXPECT_EQ(clock.forwards(1), 3);
  EXPECT_EQ(clock.inputs(1), 3);
  EXPECT_NEAR(clock.bubble(0), result.ranks[0].window_bubble, 1e-9);
}

TEST(Greedy, AChooserWhoWaitsForNothingIsAnError) {
  GreedyClock clock(two_ranks, {});
  EXPECT_THROW(clock.run([](const GreedyClock&, int) { return GreedyClock::Choice{}; }), Error);
}

TEST(Greedy, WaitsUntilTheTimeItWasTold) {
  GreedyClock clock(two_ranks, {});
  const std::vector<Program> programs = clock.run([](const GreedyClock& c, int rank) {
    if (c.now() < 10) return GreedyClock::Choice{.wait = 10};
    return any(c, rank);
  });
  EXPECT_EQ(programs[0].size(), 9u);
  EXPECT_GE(clock.now(), 10);
}

}  // namespace
}  // namespace shoestring
