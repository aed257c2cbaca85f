#include "parallel/schedules/greedy.h"

#include <algorithm>
#include <functional>

#include "core/check.h"

namespace shoestring {

GreedyClock::GreedyClock(const Placement& where, const StepTimes& times)
    : where_(where), times_(times), ranks_(static_cast<size_t>(where.ranks)), tokens_(where) {}

double GreedyClock::duration(Do what) const {
  const double whole = what == Do::F   ? times_.f
                       : what == Do::I ? times_.i
                       : what == Do::W ? times_.w
                                       : times_.i + times_.w;
  return whole * where_.share_of_stage();
}

std::optional<Instruction> GreedyClock::next(int rank, Do what, int chunk) const {
  const Rank& r = at(rank);
  const auto c = static_cast<size_t>(chunk);
  const int micro = what == Do::F ? r.forwards[c] : r.inputs[c];
  if (micro >= where_.micros) return std::nullopt;
  return Instruction{.what = what,
                     .stage = static_cast<int16_t>(where_.stage_of(rank, chunk)),
                     .micro = static_cast<int16_t>(micro)};
}

double GreedyClock::ready(const Instruction& instruction) const {
  double when = 0;
  for (const Token& token : effects_of(instruction, where_, false).eats) {
    when = std::max(when, tokens_.at(token).when);
  }
  return when;
}

std::optional<Instruction> GreedyClock::owed(int rank) const {
  if (at(rank).owed.empty()) return std::nullopt;
  return at(rank).owed.front();
}

double GreedyClock::kept(int rank) const { return at(rank).kept; }

double GreedyClock::bubble(int rank) const {
  const Rank& r = at(rank);
  return r.begun == never ? 0 : std::max(now_, r.end) - r.begun - r.busy;
}

double GreedyClock::largest_bubble() const {
  double largest = 0;
  for (int rank = 0; rank < where_.ranks; ++rank) largest = std::max(largest, bubble(rank));
  return largest;
}

int GreedyClock::forwards(int rank) const { return at(rank).forwards[0] + at(rank).forwards[1]; }

int GreedyClock::inputs(int rank) const { return at(rank).inputs[0] + at(rank).inputs[1]; }

Do GreedyClock::last(int rank) const { return at(rank).last; }

void GreedyClock::wake(double when, int rank) {
  wakes_.emplace_back(when, rank);
  std::push_heap(wakes_.begin(), wakes_.end(), std::greater<>());
}

void GreedyClock::count(int rank, const Instruction& i) {
  Rank& r = ranks_[static_cast<size_t>(rank)];
  const size_t chunk = i.stage == where_.stage_of(rank, 0) ? 0 : 1;
  if (i.what == Do::W) {
    r.owed.pop_front();
    r.kept -= where_.share_of_stage();
    return;
  }
  r.last = i.what;
  if (i.what == Do::F) {
    ++r.forwards[chunk];
    r.kept += where_.share_of_stage();
    return;
  }
  ++r.inputs[chunk];
  Instruction weight = i;
  weight.what = Do::W;
  r.owed.push_back(weight);
}

void GreedyClock::run_one(int rank, const Instruction& instruction) {
  Rank& r = ranks_[static_cast<size_t>(rank)];
  if (r.begun == never) r.begun = now_;
  r.end = now_ + duration(instruction.what);
  r.busy += r.end - now_;
  for (const Token& token : effects_of(instruction, where_, false).makes) {
    const int there = where_.rank_of(token.stage, token.micro);
    const double when = r.end + (there == rank ? 0 : times_.comm);
    tokens_.at(token).when = when;
    wake(when, there);
  }
  count(rank, instruction);
  r.program.push_back(instruction);
  wake(r.end, rank);
}

std::vector<Program> GreedyClock::run(const Chooser& choose) {
  for (int rank = 0; rank < where_.ranks; ++rank) wake(0, rank);
  const size_t each = 3 * static_cast<size_t>(where_.chunks) * static_cast<size_t>(where_.micros);
  size_t left = each * ranks_.size();
  while (left > 0) {
    if (wakes_.empty()) fail("an order of instructions in which all ranks wait");
    std::pop_heap(wakes_.begin(), wakes_.end(), std::greater<>());
    const auto [when, rank] = wakes_.back();
    wakes_.pop_back();
    if (when < at(rank).end) continue;
    now_ = when;
    const Choice choice = choose(*this, rank);
    if (choice.run) {
      run_one(rank, *choice.run);
      --left;
    } else if (choice.wait < never) {
      wake(choice.wait, rank);
    }
  }
  std::vector<Program> programs;
  for (Rank& rank : ranks_) programs.push_back(std::move(rank.program));
  return programs;
}

}  // namespace shoestring
