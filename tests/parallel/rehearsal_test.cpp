#include "parallel/rehearsal.h"

#include <gtest/gtest.h>

#include <mutex>

#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/throttled.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"

namespace shoestring {
namespace {

Rehearsal rehearse_threads(const Schedule& schedule, const RehearsalOptions& options) {
  std::mutex mutex;
  Rehearsal result;
  run_ranks(schedule.where.ranks, [&](Communicator& pipeline) {
    Rehearsal own = rehearse(pipeline, schedule, options);
    const std::lock_guard lock(mutex);
    if (pipeline.rank() == 0) result = std::move(own);
  });
  return result;
}

// Waits cannot be shorter than asked for, so the simulator's makespan is a lower bound; the upper
// one is loose here, because other work may run on the machine.
TEST(Rehearsal, TakesWhatTheSimulatorSays) {
  for (const char* name : {"1f1b", "zb-v", "dualpipe"}) {
    const Schedule s = add_transfers(make_schedule({.name = name, .ranks = 4, .micros = 8}));
    const RehearsalOptions options{.seconds_per_unit = 4e-3};
    const double simulated = simulate(s, options.times).makespan * options.seconds_per_unit;
    const Rehearsal r = rehearse_threads(s, options);
    EXPECT_GE(r.makespan, simulated * 0.999) << name;
    EXPECT_LE(r.makespan, simulated * 2) << name;
    ASSERT_EQ(r.ranks.size(), 4u);
    for (const RehearsedRank& rank : r.ranks) {
      EXPECT_GE(rank.first_start, 0);
      EXPECT_LE(rank.last_end, r.makespan * 1.000001);
      EXPECT_GE(rank.stats.compute_seconds, 8 * 3 * options.seconds_per_unit * 0.999);
      EXPECT_GT(rank.stats.bytes_sent, 0);
    }
  }
}

// Whole passes wait for their rows, parts of pairs hide them: both as the simulator says.
TEST(Rehearsal, RowsTravelBesideWhatComputes) {
  Schedule whole = add_transfers(make_schedule({.name = "dualpipe", .ranks = 2, .micros = 12}));
  whole.segments.assign(2, parse_segments("attention,dispatch,experts,combine"));
  RehearsalOptions options{.seconds_per_unit = 4e-3};
  for (size_t k = 0; k < segment_kinds; ++k) {
    const bool away = travels(static_cast<SegmentKind>(k));
    options.times.segments[k] = away ? SegmentTimes{1, 1, 0} : SegmentTimes{2, 2, 2};
  }
  const Schedule parts = split_segments(whole, whole.segments, options.times);
  double exposed[2] = {};
  for (const bool split : {false, true}) {
    const Schedule& s = split ? parts : whole;
    const Simulation simulated = simulate(s, options.times);
    std::mutex mutex;
    Rehearsal seen;
    run_ranks(4, [&](Communicator& world) {
      const int rank = world.rank() / 2;
      const auto pipeline = world.split(world.rank() % 2, rank);
      const auto one = world.split(rank, world.rank()), two = world.split(rank, world.rank());
      const LinkSpeed speed{.bytes_per_second = options.rows.bytes_per_second};
      const auto slow_one = throttled(*one, speed), slow_two = throttled(*two, speed);
      RehearsalOptions own = options;
      own.rows.forward = slow_one.get();
      own.rows.backward = slow_two.get();
      Rehearsal r = rehearse(*pipeline, s, own);
      const std::lock_guard lock(mutex);
      if (world.rank() == 0) seen = std::move(r);
    });
    EXPECT_GE(seen.makespan, 0.999 * simulated.makespan * options.seconds_per_unit);
    EXPECT_LE(seen.makespan, 2 * simulated.makespan * options.seconds_per_unit);
    exposed[split] = seen.ranks[0].exposed;
    EXPECT_GE(exposed[split], 0.8 * simulated.ranks[0].exposed * options.seconds_per_unit);
  }
  EXPECT_LT(exposed[1], 0.6 * exposed[0]);
}

}  // namespace
}  // namespace shoestring
