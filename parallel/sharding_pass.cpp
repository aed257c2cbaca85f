#include "parallel/sharding_pass.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/check.h"
#include "parallel/effects.h"
#include "parallel/simulate.h"

namespace shoestring {
namespace {

// Computing instructions, a pair as one, with the transfers that stand before them.
struct Group {
  Program before, work;
};

std::vector<Group> groups_of(const Program& program) {
  std::vector<Group> groups(1);
  for (const Instruction& i : program) {
    if (!is_compute(i.what)) {
      groups.back().before.push_back(i);
      continue;
    }
    groups.back().work.push_back(i);
    if (!i.with_next) groups.emplace_back();
  }
  return groups;  // the last has the transfers behind all work
}

using Home = std::pair<int, bool>;  // a stage, and which of its copies on the rank

class ShardingPass {
 public:
  ShardingPass(const Placement& where, const ShardingOptions& options, const Program& program)
      : where_(where), options_(options), groups_(groups_of(program)), added_(groups_.size()) {}

  Program run() {
    std::map<Home, std::vector<Use>> users, makers;
    for (size_t g = 0; g < groups_.size(); ++g) {
      for (const Instruction& i : groups_[g].work) {
        const Kept kept = kept_by(i.what);
        const Home home{i.stage,
                        where_.order == StageOrder::both_ways && i.micro >= where_.micros / 2};
        if (kept.weights == Keep::needs) users[home].push_back({g, i});
        if (kept.gradients == Keep::makes) makers[home].push_back({g, i});
      }
    }
    for (const auto& [home, uses] : users) {
      if (options_.gather) gather(uses);
    }
    for (const auto& [home, uses] : makers) {
      if (options_.reduce) reduce(uses);
    }
    return write();
  }

 private:
  struct Use {
    size_t group;
    Instruction instruction;
  };
  struct Added {
    Program before, behind;
  };
  static Instruction like(const Instruction& i, Do what) {
    return {.what = what, .stage = i.stage, .micro = i.micro};
  }
  void gather(const std::vector<Use>& uses) {
    size_t free = 0;  // the first group behind the last release
    for (size_t k = 0; k < uses.size(); ++k) {
      const size_t g = uses[k].group, ahead = static_cast<size_t>(options_.ahead);
      const bool here = k > 0 && stays(uses[k - 1].group, g);
      if (!here) {
        const size_t at = std::max(g > ahead ? g - ahead : 0, free);
        added_[at].before.push_back(like(uses[k].instruction, Do::G));
      }
      if (k + 1 < uses.size() && stays(g, uses[k + 1].group)) continue;
      added_[g].behind.push_back(like(uses[k].instruction, Do::R));
      free = g + 1;
    }
  }
  bool stays(size_t from, size_t to) const {
    return to - from <= static_cast<size_t>(options_.hold);
  }
  void reduce(const std::vector<Use>& uses) {
    for (size_t k = 0; k < uses.size(); ++k) {
      if (!options_.reduce_each && k + 1 < uses.size()) continue;
      added_[uses[k].group].behind.push_back(like(uses[k].instruction, Do::S));
    }
  }
  Program write() const {
    Program program;
    const auto append = [&](const Program& part) {
      program.insert(program.end(), part.begin(), part.end());
    };
    for (size_t g = 0; g < groups_.size(); ++g) {
      append(added_[g].before);
      append(groups_[g].before);
      append(groups_[g].work);
      append(added_[g].behind);
    }
    return program;
  }

  const Placement& where_;
  const ShardingOptions& options_;
  std::vector<Group> groups_;
  std::vector<Added> added_;  // to each group
};

}  // namespace

Schedule add_sharding(Schedule schedule, const ShardingOptions& options) {
  check(options.ahead >= 0 && options.hold >= 0, "gathers stand before what needs them");
  for (const Program& program : schedule.ranks) {
    check(std::none_of(program.begin(), program.end(),
                       [](const Instruction& i) { return is_sharding(i.what); }),
          "the programs shard already");
  }
  refuse_broken(schedule);
  for (Program& program : schedule.ranks) {
    program = ShardingPass(schedule.where, options, program).run();
  }
  return schedule;
}

}  // namespace shoestring
