#pragma once
// Collects one rank's program; chunks are numbered from the rank's point of view.

#include <deque>
#include <utility>

#include "parallel/instruction.h"

namespace shoestring {

class Emitter {
 public:
  Emitter(const Placement& where, int rank) : where_(where), rank_(rank) {}

  void add(Do what, int chunk, int micro, bool with_next = false) {
    program_.push_back({.what = what,
                        .with_next = with_next,
                        .stage = static_cast<int16_t>(where_.stage_of(rank_, chunk)),
                        .micro = static_cast<int16_t>(micro)});
  }
  // I now, its W when pop() says so.
  void split(int chunk, int micro) {
    add(Do::I, chunk, micro);
    owed_.emplace_back(chunk, micro);
  }
  // The oldest owed weight gradient.
  void pop() {
    add(Do::W, owed_.front().first, owed_.front().second);
    owed_.pop_front();
  }
  bool owes() const { return !owed_.empty(); }
  Program take() { return std::move(program_); }

 private:
  const Placement& where_;
  int rank_;
  Program program_;
  std::deque<std::pair<int, int>> owed_;  // {chunk, micro-batch}
};

}  // namespace shoestring
