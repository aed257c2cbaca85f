#include "parallel/schedule_checks.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include "core/text.h"
#include "parallel/effects.h"
#include "parallel/missing_instructions.h"

namespace shoestring {
namespace {

void check_part(const Schedule& schedule, const Instruction& i, const std::string& at,
                std::vector<std::string>& complaints) {
  const int parts = schedule.parts_of(i.stage);
  if (i.what == Do::B || !is_compute(i.what)) {
    complaints.push_back(cat(at, "only F, I and W have parts"));
  } else if (i.part >= parts) {
    complaints.push_back(cat(at, "there are parts 0 to ", parts - 1));
  } else if (i.with_next) {
    complaints.push_back(cat(at, "a part cannot be one of a pair"));
  } else {
    const SegmentKind kind =
        schedule.segments[static_cast<size_t>(i.stage)][static_cast<size_t>(i.part)];
    if (i.travels == travels(kind) && !(i.travels && i.what == Do::W)) return;
    complaints.push_back(
        cat(at, "the segment is of kind ", name_of(kind),
            travels(kind) ? ", it travels (~) and has no W" : ", it does not travel (~)"));
  }
}

// Every stage has segments, and what it begins with computes.
void check_segments(const Schedule& schedule, std::vector<std::string>& complaints) {
  if (schedule.segments.empty()) return;
  if (static_cast<int>(schedule.segments.size()) != schedule.where.stages()) {
    complaints.push_back(cat("segments of ", schedule.segments.size(), " stages, but there are ",
                             schedule.where.stages()));
    return;
  }
  for (size_t stage = 0; stage < schedule.segments.size(); ++stage) {
    const StageSegments& s = schedule.segments[stage];
    if (s.empty() || travels(s[0])) {
      complaints.push_back(cat("stage ", stage, " must begin with a segment that computes"));
    }
  }
}

// What can be said of an instruction without running anything.
void check_instruction(const Schedule& schedule, int rank, size_t number,
                       std::vector<std::string>& complaints) {
  const Program& program = schedule.ranks[static_cast<size_t>(rank)];
  const Instruction& i = program[number];
  const Placement& where = schedule.where;
  const size_t before = complaints.size();
  const std::string at = complaint_head(schedule, rank, number);
  if (i.stage < 0 || i.stage >= where.stages()) {
    complaints.push_back(cat(at, "there are stages 0 to ", where.stages() - 1));
  } else if (i.micro < 0 || i.micro >= where.micros) {
    complaints.push_back(cat(at, "there are micro-batches 0 to ", where.micros - 1));
  } else if (const int home = where.rank_of(i.stage, i.micro); home != rank) {
    complaints.push_back(cat(at, "stage ", i.stage, " of this micro-batch is on rank ", home));
  }
  if (i.with_next && number + 1 == program.size()) {
    complaints.push_back(cat(at, "it is to run with the next instruction, but is the last"));
  } else if (i.with_next && !(is_compute(i.what) && is_compute(program[number + 1].what))) {
    complaints.push_back(cat(at, "a transfer cannot be one of a pair"));
  }
  if (!i.whole() && !schedule.segments.empty() && complaints.size() == before)
    check_part(schedule, i, at, complaints);
  if (!is_transfer(i.what)) return;
  const bool up = i.what == Do::SA || i.what == Do::RG;  // between this stage and the next
  if (i.stage == (up ? where.stages() - 1 : 0)) {
    complaints.push_back(cat(at, "there is no stage ", up ? "behind" : "before", " this one"));
  } else if (!schedule.transfers) {
    complaints.push_back(cat(at, "the other programs have no transfers"));
  }
}

// Of passes in parts one of each direction is under way at a time, and whole passes run when none
// is: the engine has a lane for each direction (parallel/lane.h).
void check_lanes(const Schedule& schedule, int rank, std::vector<std::string>& complaints) {
  const Program& program = schedule.ranks[static_cast<size_t>(rank)];
  std::array<const Instruction*, 2> open = {};  // the latest parts of passes that go on
  for (size_t k = 0; k < program.size(); ++k) {
    const Instruction& i = program[k];
    if (!is_compute(i.what)) continue;
    const size_t lane = i.what == Do::F ? 0 : 1;
    const int last = schedule.parts_of(i.stage) - 1;
    const bool begins = i.part == (lane == 0 ? 0 : last) && i.what != Do::W;
    for (const size_t other : {lane, 1 - lane}) {
      if (open[other] == nullptr || !(i.whole() || (begins && other == lane))) continue;
      complaints.push_back(cat(complaint_head(schedule, rank, k), "the pass of ",
                               instruction_text(*open[other]), " is not at its end"));
      open[other] = nullptr;
    }
    if (i.whole()) continue;
    const bool ends = lane == 0 ? i.part == last : i.what == Do::W && i.part == 0;
    open[lane] = ends ? nullptr : &i;
  }
}

// Values from one rank to another arrive in the order in which they were sent.
void check_order(const Schedule& schedule, std::vector<std::string>& complaints) {
  std::map<std::tuple<int, int, Do>, std::array<std::vector<Instruction>, 2>> channels;
  const Placement& where = schedule.where;
  for (const Program& program : schedule.ranks) {
    for (const Instruction& i : program) {
      if (!is_transfer(i.what)) continue;
      const Channel c = channel_of(i, where);
      Instruction sent = i;  // as the sender says it
      sent.what = c.what;
      if (i.what == Do::RA) --sent.stage;
      if (i.what == Do::RG) ++sent.stage;
      channels[{c.from, c.to, c.what}][is_receipt(i.what) ? 1 : 0].push_back(sent);
    }
  }
  for (const auto& [key, lists] : channels) {
    const auto& [sent, received] = lists;
    for (size_t k = 0; k < std::min(sent.size(), received.size()); ++k) {
      if (sent[k] == received[k]) continue;
      complaints.push_back(cat("rank ", std::get<1>(key), " receives ",
                               instruction_text(received[k]), " as number ", k + 1, " from rank ",
                               std::get<0>(key), ", which sends ", instruction_text(sent[k])));
      break;
    }
  }
}

}  // namespace

std::vector<std::string> standing_complaints_of(const Schedule& schedule) {
  std::vector<std::string> complaints;
  const auto ranks = static_cast<size_t>(schedule.where.ranks);
  if (schedule.ranks.size() != ranks) {
    return {cat("programs for ", schedule.ranks.size(), " ranks, but there are ", ranks)};
  }
  check_segments(schedule, complaints);
  if (!complaints.empty()) return complaints;
  if (schedule.segments.empty()) {
    for (size_t r = 0; r < ranks; ++r) {
      const Program& program = schedule.ranks[r];
      const auto part = std::ranges::find_if(program, [](auto& i) { return !i.whole(); });
      if (part == program.end()) continue;
      const auto number = static_cast<size_t>(part - program.begin());
      return {cat(complaint_head(schedule, static_cast<int>(r), number),
                  "it is of a part, but the segments of the stages are not told (--segments)")};
    }
  }
  for (size_t r = 0; r < ranks; ++r) {
    for (size_t k = 0; k < schedule.ranks[r].size(); ++k) {
      check_instruction(schedule, static_cast<int>(r), k, complaints);
    }
  }
  if (!complaints.empty()) return complaints;
  for (size_t r = 0; r < ranks; ++r) check_lanes(schedule, static_cast<int>(r), complaints);
  const std::vector<std::string> missing = missing_complaints_of(schedule);
  complaints.insert(complaints.end(), missing.begin(), missing.end());
  check_order(schedule, complaints);
  return complaints;
}

}  // namespace shoestring
