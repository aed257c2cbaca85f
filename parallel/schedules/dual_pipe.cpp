// DualPipe (DeepSeek-V3 report, section 3.2.1; the order itself: the authors' published program)
// and DualPipeV, the same order on half the ranks: the second direction is the way back up.

#include <algorithm>
#include <array>

#include "parallel/schedules/emitter.h"
#include "parallel/schedules/generators.h"

namespace shoestring {
namespace {

// The eight steps, in terms of two phases: 0 is the direction that enters on this rank's half, 1
// the other one.
class DualOrder {
 public:
  DualOrder(const Placement& where, int rank)
      : out_(where, rank),
        both_ways_(where.order == StageOrder::both_ways),
        half_(both_ways_ ? where.micros / 2 : where.micros),
        steps_(both_ways_ ? where.ranks / 2 : where.ranks),
        distance_(both_ways_ ? std::min(rank, where.ranks - 1 - rank) : rank),
        mirrored_(both_ways_ && rank >= steps_) {}

  Program make() {
    const int h = steps_, k = distance_;
    for (int i = 0; i < 2 * (h - k - 1); ++i) forward(0);
    for (int i = 0; i < k + 1; ++i) {
      forward(0);
      forward(1);
    }
    for (int i = 0; i < h - k - 1; ++i) {
      input(1);
      out_.pop();
      forward(1);
    }
    steady(half_ - 2 * h + k + 1);
    for (int i = 0; i < h - k - 1; ++i) {
      backward(1);
      pair(1, 0);
    }
    cool_down();
    for (int i = 0; i < h - k - 1; ++i) {
      out_.pop();
      input(0);
    }
    while (out_.owes()) out_.pop();
    return out_.take();
  }

 private:
  void steady(int count) {
    for (int i = 0; i < count; ++i) {
      if (i == 0 && distance_ == steps_ - 1) {
        forward(0);  // its partner has nothing to give back yet
        backward(1);
      } else {
        pair(0, 1);
      }
      pair(1, 0);
    }
  }
  // Half-way from full backward passes to split ones, whose W fill the last bubbles.
  void cool_down() {
    const int n = distance_ + 1;
    bool splits = false;
    for (int i = 0; i < n; ++i) {
      if (i == n / 2 && distance_ % 2 == 1) splits = true;
      splits ? input(1) : backward(1);
      if (i == n / 2 && distance_ % 2 == 0) splits = true;
      splits ? input(0) : backward(0);
    }
  }
  // A rank of the second half meets the other direction first.
  int chunk_of(int phase) const { return mirrored_ ? 1 - phase : phase; }
  int micro_of(int phase, int number) const {
    return both_ways_ && chunk_of(phase) == 1 ? half_ + number : number;
  }
  void forward(int phase, bool with_next = false) {
    out_.add(Do::F, chunk_of(phase), micro_of(phase, forwards_[phase]++), with_next);
  }
  void backward(int phase) {
    out_.add(Do::B, chunk_of(phase), micro_of(phase, backwards_[phase]++));
  }
  void input(int phase) { out_.split(chunk_of(phase), micro_of(phase, backwards_[phase]++)); }
  void pair(int f, int b) {
    forward(f, true);
    backward(b);
  }

  Emitter out_;
  bool both_ways_;
  int half_, steps_, distance_;
  bool mirrored_;
  std::array<int, 2> forwards_ = {}, backwards_ = {};
};

}  // namespace

Program dual_pipe_program(const Placement& where, int rank) {
  return DualOrder(where, rank).make();
}

}  // namespace shoestring
