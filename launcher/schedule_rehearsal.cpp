#include "launcher/schedule_rehearsal.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/throttled.h"
#include "parallel/passes.h"

namespace shoestring {

namespace {

constexpr double most_exposed = 0.05;
// 512 take half a minute and 1.5 GiB on two cores, and four times as much twice as many.
constexpr int64_t most_threads = 512;

// Threads that run the same program, a pipeline rank, stand one behind the other.
Rehearsal run_threads(const Schedule& schedule, const RehearsalOptions& options, int expert_ranks) {
  Rehearsal rehearsal;
  run_ranks(schedule.where.ranks * expert_ranks, [&](Communicator& world) {
    const int rank = world.rank() / expert_ranks, place = world.rank() % expert_ranks;
    const auto pipeline = world.split(place, rank);
    const auto forward = world.split(rank, place), backward = world.split(rank, place);
    const LinkSpeed speed{.bytes_per_second = options.rows.bytes_per_second};
    const auto slow_forward = throttled(*forward, speed);
    const auto slow_backward = throttled(*backward, speed);
    RehearsalOptions own = options;
    own.rows.forward = slow_forward.get();
    own.rows.backward = slow_backward.get();
    Rehearsal seen = rehearse(*pipeline, schedule, own);
    if (world.rank() == 0) rehearsal = std::move(seen);
  });
  return rehearsal;
}

double worst_exposed(const auto& ranks) {
  double worst = 0;
  for (const auto& rank : ranks) worst = std::max(worst, rank.exposed);
  return worst;
}

}  // namespace

bool rows_travel(const Schedule& schedule) {
  return std::ranges::any_of(schedule.segments, [](const StageSegments& segments) {
    return std::ranges::any_of(segments, travels);
  });
}

std::vector<Measurement> rehearse_in_threads(Schedule schedule, const RehearsalOptions& options,
                                             int expert_ranks, const RehearsalTold& tell) {
  const bool travel = rows_travel(schedule);
  if (!travel) expert_ranks = 1;
  if (travel && expert_ranks < 2) {
    fail_usage(cat("--expert-ranks is ", expert_ranks, ", but rows travel between at least 2"));
  }
  const int64_t threads = int64_t{schedule.where.ranks} * expert_ranks;
  if (threads > most_threads) {
    fail_usage(cat("a rehearsal of ", counted(schedule.where.ranks, "rank"),
                   expert_ranks > 1 ? cat(" x ", expert_ranks, " of --expert-ranks") : "",
                   " needs ", threads, " threads, but at most ", most_threads,
                   " can be started; simulate has no such limit"));
  }
  if (!schedule.transfers) schedule = add_transfers(std::move(schedule));
  StepTimes times = options.times;
  times.comm = 0;  // nothing imposes it
  const Simulation simulation = simulate(schedule, times);
  const double simulated = simulation.makespan * options.seconds_per_unit;
  if (tell) tell({.threads = static_cast<int>(threads), .seconds = simulated});
  const Rehearsal rehearsal = run_threads(schedule, options, expert_ranks);
  double waited = 0, overhead = 0;
  for (const RehearsedRank& rank : rehearsal.ranks) {
    const PipelineStats& s = rank.stats;
    waited = std::max(waited, s.wait_seconds);
    if (s.instructions == 0) continue;
    const double idle = s.wait_seconds + s.travel_seconds;
    overhead = std::max(overhead, (s.step_seconds - s.compute_seconds - idle) /
                                      static_cast<double>(s.instructions));
  }
  std::vector<Measurement> rows = {
      {.name = "makespan_seconds", .value = rehearsal.makespan, .unit = "s"},
      {.name = "simulated_seconds", .value = simulated, .unit = "s"},
      {.name = "over_simulation",
       .value = rehearsal.makespan / simulated,
       .unit = "x",
       .goal = 1.05,
       .at_most = true},
      {.name = "longest_wait_seconds", .value = waited, .unit = "s"},
      {.name = "overhead_per_instruction_seconds", .value = overhead, .unit = "s"}};
  if (!travel) return rows;
  const double expected = worst_exposed(simulation.ranks) / simulation.makespan;
  rows.push_back({.name = "exposed_share",
                  .value = worst_exposed(rehearsal.ranks) / rehearsal.makespan,
                  .unit = "of the makespan",
                  .at_most = true});
  if (expected <= most_exposed) rows.back().goal = most_exposed;
  rows.push_back({.name = "simulated_exposed_share", .value = expected, .unit = "of the makespan"});
  return rows;
}

}  // namespace shoestring
