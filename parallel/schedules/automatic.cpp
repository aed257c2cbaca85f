// The zero-bubble heuristic (arXiv 2401.10241, section 3.1): forward passes as memory allows, then
// one forward and one backward in turn, weight gradients into the gaps.

#include <algorithm>

#include "parallel/schedules/generators.h"
#include "parallel/schedules/greedy.h"

namespace shoestring {
namespace {

// What the paper leaves open; every combination is tried.
struct Habits {
  bool eager = false;    // one forward pass more that may hold up the first backward pass
  bool patient = false;  // leaves out a forward pass while the next rank is more than one behind
};

class ZeroBubble {
 public:
  ZeroBubble(double memory, Habits habits) : memory_(memory), habits_(habits) {}

  GreedyClock::Choice operator()(const GreedyClock& clock, int rank) const {
    const Sight sight = look(clock, rank);
    const double now = clock.now();
    const bool first = clock.inputs(rank) == 0;
    const bool forward =
        sight.f <= now && (first ? fits(clock, rank, sight) : !held_back(clock, rank));
    if (forward && (first || clock.last(rank) == Do::I || behind(clock, rank))) {
      return {.run = clock.next(rank, Do::F, 0)};
    }
    if (sight.i <= now) return {.run = clock.next(rank, Do::I, 0)};
    if (forward) return {.run = clock.next(rank, Do::F, 0)};
    return fill(clock, rank, std::min(sight.f > now ? sight.f : GreedyClock::never, sight.i));
  }

 private:
  // When the next forward and backward pass could begin; never without memory or when none is left.
  struct Sight {
    double f = GreedyClock::never, i = GreedyClock::never;
  };
  Sight look(const GreedyClock& clock, int rank) const {
    Sight sight;
    const bool room = clock.kept(rank) + 1 <= memory_ + 1e-9;
    if (const auto f = clock.next(rank, Do::F, 0); f && room) sight.f = clock.ready(*f);
    if (const auto i = clock.next(rank, Do::I, 0)) sight.i = clock.ready(*i);
    return sight;
  }
  // Before the first backward pass: does another forward pass end before that could begin?
  bool fits(const GreedyClock& clock, int rank, const Sight& sight) const {
    if (clock.now() + clock.duration(Do::F) <= sight.i) return true;
    if (!habits_.eager) return false;
    return !is_last(clock, rank) && ahead(clock, rank) < 2;
  }
  int ahead(const GreedyClock& clock, int rank) const {
    return clock.forwards(rank) - clock.forwards(rank + 1);
  }
  static bool is_last(const GreedyClock& clock, int rank) {
    return rank + 1 == clock.where().ranks;
  }
  // A rank stays at least one forward pass before the next one.
  bool behind(const GreedyClock& clock, int rank) const {
    return !is_last(clock, rank) && ahead(clock, rank) < 1;
  }
  bool held_back(const GreedyClock& clock, int rank) const {
    return habits_.patient && !is_last(clock, rank) && ahead(clock, rank) > 1;
  }
  // Nothing else can run before `next`: a weight gradient where it fits, where memory is full, or
  // where waiting would make this rank's idle time the largest.
  GreedyClock::Choice fill(const GreedyClock& clock, int rank, double next) const {
    const auto owed = clock.owed(rank);
    if (!owed) return {.wait = next};
    const double gap = next - clock.now();
    const bool fits = gap >= clock.duration(Do::W);
    const bool longest = clock.bubble(rank) + gap > clock.largest_bubble();
    if (fits || longest) return {.run = owed};
    return {.wait = next};
  }

  double memory_;
  Habits habits_;
};

}  // namespace

std::vector<Program> automatic_programs(const Placement& where, const StepTimes& times,
                                        double memory) {
  std::vector<Program> best;
  double least = GreedyClock::never;
  for (const bool eager : {false, true}) {
    for (const bool patient : {false, true}) {
      Schedule schedule{.name = "automatic", .where = where, .ranks = {}};
      schedule.ranks =
          GreedyClock(where, times).run(ZeroBubble(memory, {.eager = eager, .patient = patient}));
      const double makespan = simulate(schedule, times).makespan;
      if (makespan >= least) continue;
      least = makespan;
      best = std::move(schedule.ranks);
    }
  }
  return best;
}

}  // namespace shoestring
