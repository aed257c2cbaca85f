#pragma once
// Orders that no formula gives: found over a clock. Whenever a rank is free, a chooser sees what
// could run now and what is under way, and decides.

#include <array>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "parallel/simulate.h"
#include "parallel/token_table.h"

namespace shoestring {

class GreedyClock {
 public:
  static constexpr double never = std::numeric_limits<double>::infinity();

  GreedyClock(const Placement& where, const StepTimes& times);

  struct Choice {
    std::optional<Instruction> run = {};
    double wait = never;  // without `run`: asked again then, or when something arrives
  };
  using Chooser = std::function<Choice(const GreedyClock&, int rank)>;
  // Until every F, I and W is placed; an internal error when all ranks wait.
  std::vector<Program> run(const Chooser& choose);

  const Placement& where() const { return where_; }
  double now() const { return now_; }
  double duration(Do what) const;  // of one stage
  // The next of its kind on a rank's chunk; none when all have run.
  std::optional<Instruction> next(int rank, Do what, int chunk) const;
  // When what it eats is there; never while nobody has begun to make that.
  double ready(const Instruction& instruction) const;
  // The weight gradient that was owed first; none when none is.
  std::optional<Instruction> owed(int rank) const;
  double kept(int rank) const;    // activations, in micro-batches of a rank's whole share
  double bubble(int rank) const;  // idle time since its first instruction
  double largest_bubble() const;  // of all ranks
  int forwards(int rank) const;   // how many F ran, all chunks
  int inputs(int rank) const;     // how many I ran
  Do last(int rank) const;        // of F and I, the one that ran last; F at first

 private:
  struct Rank {
    std::array<int, 2> forwards = {}, inputs = {};  // of each chunk, how many ran
    std::deque<Instruction> owed;
    double begun = never, end = 0, busy = 0, kept = 0;
    Do last = Do::F;
    Program program;
  };
  const Rank& at(int rank) const { return ranks_[static_cast<size_t>(rank)]; }
  void run_one(int rank, const Instruction& instruction);
  void count(int rank, const Instruction& instruction);

  Placement where_;
  StepTimes times_;
  double now_ = 0;
  std::vector<Rank> ranks_;
  struct Ready {
    double when = never;
  };
  TokenTable<Ready> tokens_;
  std::vector<std::pair<double, int>> wakes_;  // a heap, the earliest first
  void wake(double when, int rank);
};

}  // namespace shoestring
