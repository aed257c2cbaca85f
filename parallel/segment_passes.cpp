#include "parallel/segment_passes.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "parallel/effects.h"

namespace shoestring {
namespace {

// One pass of a pair, part by part.
class Parts {
 public:
  Parts(const Instruction& whole, const StageSegments& segments, const StepTimes& times)
      : whole_(whole) {
    for (size_t k = 0; k < segments.size(); ++k) {
      const size_t at = whole.what == Do::F ? k : segments.size() - 1 - k;
      const SegmentTimes& t = times.segments[static_cast<size_t>(segments[at])];
      const bool away = travels(segments[at]);
      if (whole.what == Do::F) {
        add(Do::F, at, segments[at], t.f);
      } else {
        add(Do::I, at, segments[at], t.i);
        if (!away) add(Do::W, at, segments[at], t.w);
      }
    }
  }
  bool done() const { return next_ == list_.size(); }
  const Instruction& next() const { return list_[next_].instruction; }
  bool at_edge() const { return list_[next_].edge; }
  bool has_edges_left() const {
    return std::any_of(list_.begin() + static_cast<std::ptrdiff_t>(next_), list_.end(),
                       [](const Part& part) { return part.edge; });
  }
  double ready() const { return ready_; }  // when the next one may start
  double left() const { return left_; }
  // When the value is there that leaves this pass: behind the last F, behind I.0.
  bool has_sent() const {
    return whole_.what == Do::F ? done() : next_ > 0 && list_[next_ - 1].instruction.part == 0;
  }
  const Instruction& whole() const { return whole_; }
  // Issues the next part at `now`; gives the time at which this rank can go on.
  double issue(double now) {
    const Part& part = list_[next_++];
    const double start = std::max(now, ready_);
    ready_ = start + part.time;
    left_ -= part.time;
    return part.instruction.travels ? start : ready_;
  }

 private:
  struct Part {
    Instruction instruction;
    double time = 0;
    bool edge = false;
  };
  void add(Do what, size_t at, SegmentKind kind, double time) {
    list_.push_back({{.what = what,
                      .travels = travels(kind),
                      .stage = whole_.stage,
                      .micro = whole_.micro,
                      .part = static_cast<int16_t>(at)},
                     time,
                     kind == SegmentKind::edge});
    left_ += time;
  }

  Instruction whole_;
  std::vector<Part> list_;
  size_t next_ = 0;
  double ready_ = 0, left_ = 0;
};

// Writes a pair as one list.
class Interleaver {
 public:
  Interleaver(Parts first, Parts second, std::span<const Instruction> sends, int stages)
      : sends_(sends.begin(), sends.end()), second_(first.whole().what == Do::F ? 1 : 0) {
    passes_[1 - second_].emplace(std::move(first));
    passes_[second_].emplace(std::move(second));
    const int last = stages - 1, f = passes_[0]->whole().stage, b = passes_[1]->whole().stage;
    share_edges_ = f == last && (b == 0 || b == last);
  }

  void write(Program& program) {
    while (!passes_[0]->done() || !passes_[1]->done()) {
      send(program, false);
      Parts& pass = choose();
      program.push_back(pass.next());
      now_ = std::max(now_, pass.issue(now_));
    }
    send(program, true);
  }

 private:
  bool may_go_on(size_t which) const {
    const Parts& pass = *passes_[which];
    if (pass.done()) return false;
    return which != second_ || !share_edges_ || !pass.at_edge() ||
           !passes_[1 - which]->has_edges_left();
  }
  // What travels starts as soon as it can.
  Parts& choose() {
    Parts &forward = *passes_[0], &backward = *passes_[1];
    if (!may_go_on(1)) return forward;
    if (!may_go_on(0)) return backward;
    const double f = std::max(now_, forward.ready()), b = std::max(now_, backward.ready());
    if (f != b) return f < b ? forward : backward;
    if (forward.next().travels != backward.next().travels) {
      return forward.next().travels ? forward : backward;
    }
    return forward.left() > backward.left() ? forward : backward;
  }
  void send(Program& program, bool all) {
    std::erase_if(sends_, [&](const Instruction& send) {
      const Parts& pass = *passes_[send.what == Do::SA ? 0 : 1];
      const bool there = pass.has_sent() && (send.what == Do::SG || pass.ready() <= now_);
      if (there || all) program.push_back(send);
      return there || all;
    });
  }

  std::array<std::optional<Parts>, 2> passes_;  // F, B
  std::vector<Instruction> sends_;
  size_t second_;             // of the two, in the order of the pair
  bool share_edges_ = false;  // both may make gradients of the embedding's matrix
  double now_ = 0;
};

}  // namespace

bool can_overlap(std::string_view schedule) {
  const std::string_view names[] = {"1f1b", "interleaved-1f1b", "dualpipe", "dualpipev"};
  return std::find(std::begin(names), std::end(names), schedule) != std::end(names);
}

bool has_pairs(const Schedule& schedule) {
  return std::any_of(schedule.ranks.begin(), schedule.ranks.end(), [](const Program& program) {
    return std::any_of(program.begin(), program.end(),
                       [](const Instruction& i) { return i.with_next; });
  });
}

Schedule pair_overlap(Schedule schedule) {
  check(!schedule.transfers, "pairs are made before transfers");
  const int ranks = schedule.where.ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    Program& program = schedule.ranks[static_cast<size_t>(rank)];
    Program forward, backward;
    size_t ahead = 0;  // forward passes before the first backward pass
    for (const Instruction& i : program) {
      if ((i.what != Do::F && i.what != Do::B) || i.with_next) {
        fail_usage(cat(schedule.name, " has more than plain F and B (", instruction_text(i),
                       "); pairs are made of those of 1f1b and interleaved-1f1b"));
      }
      (i.what == Do::F ? forward : backward).push_back(i);
      if (i.what == Do::F && backward.empty()) ++ahead;
    }
    const int further = schedule.where.chunks == 1 ? ranks - rank : 1;
    ahead = std::min(ahead + static_cast<size_t>(further) - 1, forward.size());
    program.assign(forward.begin(), forward.begin() + static_cast<std::ptrdiff_t>(ahead));
    for (size_t k = 0; k < backward.size(); ++k) {
      program.push_back(backward[k]);
      if (ahead + k >= forward.size()) continue;
      program.push_back(forward[ahead + k]);
      // The last stage's backward pass begins with the head, where its forward pass ends.
      if (program.back().stage + 1 < schedule.where.stages())
        std::iter_swap(program.end() - 1, program.end() - 2);
      program[program.size() - 2].with_next = true;
    }
  }
  schedule.name += " in pairs";
  refuse_broken(schedule);
  return schedule;
}

Schedule split_segments(Schedule schedule, std::vector<StageSegments> segments,
                        const StepTimes& times) {
  schedule.segments = std::move(segments);
  refuse_broken(schedule);
  for (Program& program : schedule.ranks) {
    Program split;
    for (size_t k = 0; k < program.size(); ++k) {
      if (!program[k].with_next) {
        split.push_back(program[k]);
        continue;
      }
      const Instruction &first = program[k], &second = program[k + 1];
      const bool forward_first = first.what == Do::F && second.what == Do::B;
      if (second.with_next || !(forward_first || (first.what == Do::B && second.what == Do::F))) {
        fail_usage(cat("only pairs of a forward and a whole backward pass, as 0F2&1B0, are ",
                       "interleaved, not ", instruction_text(first), "&",
                       instruction_text(second)));
      }
      size_t end = k + 2;
      const auto follows = [&](const Instruction& i) {
        const Instruction& pass = (i.what == Do::SA) == forward_first ? first : second;
        return (i.what == Do::SA || i.what == Do::SG) && i.stage == pass.stage &&
               i.micro == pass.micro;
      };
      Program sends, sharding;
      for (; end < program.size(); ++end) {
        const Instruction& i = program[end];
        if (!follows(i) && i.what != Do::R && i.what != Do::S) break;
        (follows(i) ? sends : sharding).push_back(i);
      }
      const auto parts = [&](const Instruction& i) {
        return Parts(i, schedule.segments[static_cast<size_t>(i.stage)], times);
      };
      Interleaver(parts(first), parts(second), sends, schedule.where.stages()).write(split);
      split.insert(split.end(), sharding.begin(), sharding.end());
      k = end - 1;
    }
    program = std::move(split);
  }
  refuse_broken(schedule);
  return schedule;
}

}  // namespace shoestring
