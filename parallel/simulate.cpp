#include "parallel/simulate.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "parallel/schedule_checks.h"
#include "parallel/sharding_checks.h"
#include "parallel/token_table.h"

namespace shoestring {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

// When a token is there and whose rank made it.
struct TokenTime {
  double ready = never;
  int rank = -1;
  size_t number = 0;  // the instruction of that rank
  bool eaten = false;
  int waiter = -1;        // a rank that stopped at it
  double posted = never;  // when somebody was ready to receive it
  int receiver = -1;
  size_t receipt = 0;      // the receiver's instruction
  bool travelled = false;  // it came by a part that travels
};

int most_parts(const Schedule& schedule) {
  size_t most = 0;
  for (const StageSegments& s : schedule.segments) most = std::max(most, s.size());
  return static_cast<int>(most);
}

// A stage's F, I and W: what is computed, and for how long rows travel.
struct StageCost {
  std::array<double, 3> computed = {}, travelling = {};
};
size_t pass_of(Do what) { return what == Do::F ? 0 : what == Do::I ? 1 : 2; }
double time_of(const SegmentTimes& times, Do what) {
  return what == Do::F ? times.f : what == Do::I ? times.i : times.w;
}

std::vector<StageCost> costs_of(const Schedule& schedule, const StepTimes& times) {
  std::vector<StageCost> costs(static_cast<size_t>(schedule.where.stages()));
  const double share = schedule.where.share_of_stage();
  for (size_t stage = 0; stage < costs.size(); ++stage) {
    StageCost& cost = costs[stage];
    if (schedule.segments.empty()) {
      cost.computed = {times.f * share, times.i * share, times.w * share};
      continue;
    }
    for (const SegmentKind kind : schedule.segments[stage]) {
      const SegmentTimes& t = times.segments[static_cast<size_t>(kind)];
      auto& into = travels(kind) ? cost.travelling : cost.computed;
      for (const Do what : {Do::F, Do::I, Do::W}) into[pass_of(what)] += time_of(t, what);
    }
  }
  return costs;
}

struct Duration {
  double computed = 0, travelling = 0;
  double sum() const { return computed + travelling; }
};

// Runs every rank as far as it comes; a rank that lacks a token is woken when it is made.
class Walk {
 public:
  Walk(const Schedule& schedule, const StepTimes& times)
      : schedule_(schedule),
        times_(times),
        costs_(costs_of(schedule, times)),
        tokens_(schedule.where, most_parts(schedule)),
        at_(schedule.ranks.size()),
        free_(schedule.ranks.size()),
        alive_(schedule.ranks.size()),
        lanes_(schedule.ranks.size()) {
    result_.ranks.resize(schedule.ranks.size());
  }

  void run() {
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) runnable_.push_back(static_cast<int>(r));
    while (!runnable_.empty()) {
      const int rank = runnable_.back();
      runnable_.pop_back();
      while (step(rank)) {
      }
    }
  }

  std::vector<std::string> complaints() {
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) {
      const Program& program = schedule_.ranks[r];
      if (at_[r] >= program.size()) continue;
      if (const Token* missing = first_missing(static_cast<int>(r))) {
        complaints_.push_back(cat(place_text(schedule_, static_cast<int>(r), at_[r]), "rank ", r,
                                  " stops at ", instruction_text(program[at_[r]]), " (number ",
                                  at_[r] + 1, "): ", token_text(*missing), " never comes"));
      }
    }
    if (complaints_.empty()) {
      tokens_.each([&](const Token& token, const TokenTime& cell) {
        if (cell.rank < 0 || cell.eaten) return;
        complaints_.push_back(cat(place(cell.rank, cell.number), token_text(token),
                                  " is left over: nothing uses it"));
      });
    }
    return std::move(complaints_);
  }
  Simulation take() { return std::move(result_); }

 private:
  std::string place(int rank, size_t number) const {
    return complaint_head(schedule_, rank, number);
  }
  Effects effects_of(const Instruction& i) const {
    return shoestring::effects_of(i, schedule_.where, schedule_.transfers,
                                  schedule_.parts_of(i.stage));
  }
  size_t group_end(size_t rank) const {
    size_t end = at_[rank];
    while (end + 1 < schedule_.ranks[rank].size() && schedule_.ranks[rank][end].with_next) ++end;
    return end + 1;
  }
  // The first token that the next instructions of a rank lack; what the same group makes counts.
  const Token* first_missing(int rank) {
    const auto r = static_cast<size_t>(rank);
    const Program& program = schedule_.ranks[r];
    for (size_t k = at_[r]; k < group_end(r); ++k) {
      needed_ = effects_of(program[k]);
      for (const Token& token : needed_.eats) {
        if (tokens_.at(token).rank < 0) return &token;
      }
    }
    return nullptr;
  }
  Duration duration_of(const Instruction& i) const {
    if (!is_compute(i.what)) return {};  // transfers run beside
    if (!i.whole()) {
      const SegmentKind kind =
          schedule_.segments[static_cast<size_t>(i.stage)][static_cast<size_t>(i.part)];
      const double time = time_of(times_.segments[static_cast<size_t>(kind)], i.what);
      return i.travels ? Duration{0, time} : Duration{time, 0};
    }
    const StageCost& cost = costs_[static_cast<size_t>(i.stage)];
    Duration d;
    for (const Do what : {Do::F, Do::I, Do::W}) {
      if (i.what != what && !(i.what == Do::B && what != Do::F)) continue;
      d.computed += cost.computed[pass_of(what)];
      d.travelling += cost.travelling[pass_of(what)];
    }
    return d;
  }
  Duration duration_of(const Program& program, size_t begin, size_t end) const {
    if (end - begin > 1 && times_.fb > 0 && schedule_.segments.empty()) {
      return {times_.fb * schedule_.where.share_of_stage(), 0};
    }
    Duration sum;
    for (size_t k = begin; k < end; ++k) {
      const Duration d = duration_of(program[k]);
      sum = {sum.computed + d.computed, sum.travelling + d.travelling};
    }
    return sum;
  }
  bool step(int rank) {
    const auto r = static_cast<size_t>(rank);
    const Program& program = schedule_.ranks[r];
    if (at_[r] >= program.size()) return false;
    if (is_receipt(program[at_[r]].what)) {
      post(rank, program[at_[r]]);
      return true;
    }
    if (const Token* missing = first_missing(rank)) {
      tokens_.at(*missing).waiter = rank;
      return false;
    }
    const size_t begin = at_[r], end = group_end(r);
    Start start{free_[r], free_[r]};
    for (size_t k = begin; k < end; ++k) eat(rank, k, start);
    const Instruction& first = program[begin];
    if (is_compute(first.what)) await_lanes(r, first, start);
    const Duration duration = duration_of(program, begin, end);
    const double stop = start.at + duration.sum();
    for (size_t k = begin; k < end; ++k) make(rank, k, stop);
    result_.ranks[r].exposed += start.at - start.others;
    if (!first.whole()) lanes_[r][first.what == Do::F ? 0 : 1] = stop;
    if (is_compute(first.what)) account(r, start.at, stop, first.travels ? Duration{} : duration);
    note(r, begin, end, start.at, stop);
    return true;
  }
  // When an instruction starts, and when it would if nothing of this rank travelled.
  struct Start {
    double at = 0, others = 0;
    void wait(double time, bool travelled) {
      at = std::max(at, time);
      if (!travelled) others = std::max(others, time);
    }
  };
  // One pass of a direction at a time; whole passes wait for both.
  void await_lanes(size_t r, const Instruction& i, Start& start) const {
    if (i.whole() || i.what == Do::F) start.wait(lanes_[r][0], true);
    if (i.whole() || i.what != Do::F) start.wait(lanes_[r][1], true);
  }
  void account(size_t r, double start, double stop, const Duration& duration) {
    SimulatedRank& rank = result_.ranks[r];
    if (!alive_[r].started) rank.first_start = start;
    alive_[r].started = true;
    rank.busy += duration.computed;
    rank.exposed += duration.travelling;
    rank.last_end = std::max(rank.last_end, stop);
  }
  // Waits for what it needs.
  void eat(int rank, size_t number, Start& start) {
    const Instruction& i = schedule_.ranks[static_cast<size_t>(rank)][number];
    for (const Token& token : effects_of(i).eats) {
      TokenTime& cell = tokens_.at(token);
      if (cell.eaten) {
        complaints_.push_back(cat(place(rank, number), token_text(token), " is used twice"));
      }
      cell.eaten = true;
      const bool own = cell.rank == rank;
      start.wait(cell.ready + (own ? 0 : times_.comm), own && cell.travelled);
    }
  }
  // Waits for nothing: the value comes when it was sent.
  void post(int rank, const Instruction& i) {
    const auto r = static_cast<size_t>(rank);
    TokenTime& cell = tokens_.at(*effects_of(i).eats.begin());
    if (cell.receiver >= 0) {
      complaints_.push_back(cat(place(rank, at_[r]), "it is received twice"));
    }
    cell.posted = free_[r];
    cell.receiver = rank;
    cell.receipt = at_[r];
    if (cell.rank >= 0) deliver(i);
    note(r, at_[r], at_[r] + 1, free_[r], free_[r]);
  }
  void deliver(const Instruction& receipt) {
    const Effects e = effects_of(receipt);
    TokenTime& cell = tokens_.at(*e.eats.begin());
    cell.eaten = true;
    const double ready = std::max(cell.ready, cell.posted) + times_.comm;
    for (const Token& token : e.makes) make({cell.receiver, cell.receipt}, token, ready, false);
  }
  void make(int rank, size_t number, double when) {
    const Instruction& i = schedule_.ranks[static_cast<size_t>(rank)][number];
    for (const Token& token : effects_of(i).makes) make({rank, number}, token, when, i.travels);
    if (i.what != Do::SA && i.what != Do::SG) return;
    if (tokens_.at(*effects_of(i).makes.begin()).receiver < 0) return;
    Instruction receipt = i;
    receipt.what = i.what == Do::SA ? Do::RA : Do::RG;
    receipt.stage = static_cast<int16_t>(i.stage + (i.what == Do::SA ? 1 : -1));
    deliver(receipt);
  }
  struct Maker {
    int rank = 0;
    size_t number = 0;
  };
  void make(const Maker& by, const Token& token, double when, bool travels) {
    TokenTime& cell = tokens_.at(token);
    if (cell.rank >= 0) {
      complaints_.push_back(cat(place(by.rank, by.number), token_text(token), " is made twice"));
    }
    cell.ready = when;
    cell.rank = by.rank;
    cell.number = by.number;
    cell.travelled = travels;
    if (cell.waiter >= 0) runnable_.push_back(std::exchange(cell.waiter, -1));
  }
  void note(size_t r, size_t begin, size_t end, double start, double stop) {
    SimulatedRank& rank = result_.ranks[r];
    free_[r] = schedule_.ranks[r][begin].travels ? start : stop;
    // A pair keeps both at once: what F takes is there before what B held is given back.
    const double share = schedule_.where.share_of_stage();
    double& alive = alive_[r].shares;
    for (size_t k = begin; k < end; ++k) {
      const Instruction& i = schedule_.ranks[r][k];
      if (i.what == Do::F && i.part <= 0) alive += share;
    }
    rank.peak_activations = std::max(rank.peak_activations, alive);
    for (size_t k = begin; k < end; ++k) {
      const Instruction& i = schedule_.ranks[r][k];
      if ((i.what == Do::B || i.what == Do::W) && i.part <= 0) alive -= share;
    }
    for (size_t k = begin; k < end; ++k) {
      rank.start.push_back(start);
      rank.end.push_back(stop);
    }
    at_[r] = end;
  }

  struct Alive {
    double shares = 0;  // of activations that are kept
    bool started = false;
  };
  const Schedule& schedule_;
  StepTimes times_;
  std::vector<StageCost> costs_;
  TokenTable<TokenTime> tokens_;
  std::vector<size_t> at_;
  std::vector<double> free_;  // of each rank: when it can go on
  std::vector<Alive> alive_;
  std::vector<std::array<double, 2>> lanes_;  // when the last parts of F, and of I and W, ended
  std::vector<int> runnable_;
  std::vector<std::string> complaints_;
  Effects needed_;
  Simulation result_;
};

}  // namespace

std::vector<std::string> complaints_of(const Schedule& schedule) {
  std::vector<std::string> complaints = standing_complaints_of(schedule);
  if (complaints.empty()) complaints = sharding_complaints_of(schedule);
  if (!complaints.empty()) return complaints;
  Walk walk(schedule, {});
  walk.run();
  return walk.complaints();
}

void refuse_broken(const Schedule& schedule) {
  const std::vector<std::string> complaints = complaints_of(schedule);
  if (complaints.empty()) return;
  constexpr size_t most_shown = 20;  // one cause may have a complaint of every micro-batch
  std::string text = cat("the schedule ", schedule.name, " cannot run:");
  for (size_t i = 0; i < std::min(complaints.size(), most_shown); ++i) {
    append(text, "\n  ", complaints[i]);
  }
  if (complaints.size() > most_shown) {
    append(text, "\n  and ", complaints.size() - most_shown, " more");
  }
  fail_usage(text);
}

Simulation simulate(const Schedule& schedule, const StepTimes& times) {
  refuse_broken(schedule);
  Walk walk(schedule, times);
  walk.run();
  Simulation result = walk.take();
  double first = never, last = 0;
  for (const SimulatedRank& rank : result.ranks) {
    first = std::min(first, rank.first_start);
    last = std::max(last, rank.last_end);
  }
  result.makespan = last - first;
  for (size_t r = 0; r < result.ranks.size(); ++r) {
    const KeptShares kept = peak_kept(schedule, static_cast<int>(r));
    result.ranks[r].peak_weights = kept.weights;
    result.ranks[r].peak_gradients = kept.gradients;
  }
  for (SimulatedRank& rank : result.ranks) {
    const double used = rank.busy + rank.exposed;
    rank.bubble = result.makespan - used;
    rank.window_bubble = rank.last_end - rank.first_start - used;
  }
  return result;
}

}  // namespace shoestring
