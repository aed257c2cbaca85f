#include "parallel/sharding_checks.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/text.h"
#include "parallel/effects.h"

namespace shoestring {
namespace {

// A stage on a rank, and which of its copies.
using Home = std::pair<int, bool>;
Home home_of(const Instruction& i, const Placement& where) {
  return {i.stage, where.order == StageOrder::both_ways && i.micro >= where.micros / 2};
}

struct State {
  bool gathered = false;
  size_t gather = 0;                // the program's last G
  std::map<int, size_t> unreduced;  // by micro-batch: its B or W
};

bool any_of(const Schedule& schedule, Do what) {
  return std::any_of(schedule.ranks.begin(), schedule.ranks.end(), [&](const Program& p) {
    return std::any_of(p.begin(), p.end(), [&](const Instruction& i) { return i.what == what; });
  });
}

// Is there an S behind every micro-batch, rather than one behind the last? All stages do alike: a
// second one anywhere tells.
bool reduces_each(const Schedule& schedule) {
  for (const Program& program : schedule.ranks) {
    std::set<Home> reduced;
    for (const Instruction& i : program) {
      if (i.what == Do::S && !reduced.insert(home_of(i, schedule.where)).second) return true;
    }
  }
  return false;
}

// Goes through one rank's program.
class Keeper {
 public:
  Keeper(const Schedule& schedule, int rank)
      : schedule_(schedule), rank_(rank), each_(reduces_each(schedule)) {}

  std::vector<std::string> complaints(bool gathers, bool reduces) {
    const Program& program = schedule_.ranks[static_cast<size_t>(rank_)];
    for (size_t k = 0; k < program.size(); ++k) {
      at_ = place(k);
      take(k, gathers, reduces);
    }
    for (const auto& [home, state] : states_) {
      if (gathers && state.gathered) {
        say(cat(place(state.gather), "the weights of stage ", home.first,
                " are never let go: there is no R behind it"));
      }
      if (reduces && !state.unreduced.empty()) {
        const auto& [micro, number] = *state.unreduced.begin();
        say(cat(place(number), "gradients of stage ", home.first, ", micro-batch ", micro,
                " are left: there is no S behind it"));
      }
    }
    return std::move(complaints_);
  }

  KeptShares peak() {
    const double share = schedule_.where.share_of_stage();
    KeptShares now, most;
    const bool gathers = any_of(schedule_, Do::G), reduces = any_of(schedule_, Do::S);
    const Program& program = schedule_.ranks[static_cast<size_t>(rank_)];
    for (size_t k = 0; k < program.size(); ++k) {
      State& state = states_[home(program[k])];
      const bool gathered = state.gathered, unreduced = !state.unreduced.empty();
      apply(k, state);
      if (gathers) now.weights += share * (state.gathered - gathered);
      if (reduces) now.gradients += share * (!state.unreduced.empty() - unreduced);
      most.weights = std::max(most.weights, now.weights);
      most.gradients = std::max(most.gradients, now.gradients);
    }
    return most;
  }

 private:
  Home home(const Instruction& i) const { return home_of(i, schedule_.where); }
  std::string place(size_t number) const { return complaint_head(schedule_, rank_, number); }
  void apply(size_t number, State& state) const {
    const Instruction& i = schedule_.ranks[static_cast<size_t>(rank_)][number];
    const Kept kept = kept_by(i.what);
    if (kept.weights == Keep::makes) state.gathered = true, state.gather = number;
    if (kept.weights == Keep::ends) state.gathered = false;
    if (kept.gradients == Keep::makes) state.unreduced[i.micro] = number;
    if (kept.gradients != Keep::ends) return;
    each_ ? static_cast<void>(state.unreduced.erase(i.micro)) : state.unreduced.clear();
  }
  void take(size_t number, bool gathers, bool reduces) {
    const Instruction& i = schedule_.ranks[static_cast<size_t>(rank_)][number];
    State& state = states_[home(i)];
    const Kept kept = kept_by(i.what);
    if (gathers && kept.weights == Keep::needs && !state.gathered) {
      say(cat(at_, "it needs the weights of stage ", i.stage, ", which are not gathered"));
    }
    if (kept.weights == Keep::makes && state.gathered) {
      say(cat(at_, "the weights of stage ", i.stage, " are gathered already"));
    }
    if (kept.weights == Keep::ends && !state.gathered) {
      say(cat(at_, "the weights of stage ", i.stage, " are not gathered"));
    }
    const bool none = each_ ? !state.unreduced.contains(i.micro) : state.unreduced.empty();
    if (reduces && kept.gradients == Keep::ends && none) {
      say(cat(at_, "stage ", i.stage, " has no gradients of this micro-batch that wait for S"));
    }
    apply(number, state);
  }
  void say(std::string text) { complaints_.push_back(std::move(text)); }

  const Schedule& schedule_;
  int rank_;
  bool each_;
  std::map<Home, State> states_;
  std::string at_;
  std::vector<std::string> complaints_;
};

}  // namespace

std::vector<std::string> sharding_complaints_of(const Schedule& schedule) {
  const bool gathers = any_of(schedule, Do::G) || any_of(schedule, Do::R);
  const bool reduces = any_of(schedule, Do::S);
  std::vector<std::string> all;
  if (!gathers && !reduces) return all;
  for (int r = 0; r < schedule.where.ranks; ++r) {
    for (std::string& text : Keeper(schedule, r).complaints(gathers, reduces)) {
      all.push_back(std::move(text));
    }
  }
  return all;
}

KeptShares peak_kept(const Schedule& schedule, int rank) { return Keeper(schedule, rank).peak(); }

}  // namespace shoestring
