// Zero-bubble orders (arXiv 2401.10241): the backward pass in two, so that weight gradients fill
// what would be idle.

#include <algorithm>

#include "parallel/schedules/emitter.h"
#include "parallel/schedules/generators.h"

namespace shoestring {

// Section 2.1: 1F1B with W behind I by r micro-batches, so that every rank holds p of them.
Program zb_h1_program(const Placement& where, int rank) {
  Emitter out(where, rank);
  const int m = where.micros, warm = std::min(where.ranks - 1 - rank, m);
  int next_w = 0;
  const auto backward = [&](int i) {
    out.add(Do::I, 0, i);
    if (i >= rank) out.add(Do::W, 0, next_w++);
  };
  for (int i = 0; i < warm; ++i) out.add(Do::F, 0, i);
  for (int k = 0; k < m - warm; ++k) {
    out.add(Do::F, 0, warm + k);
    backward(k);
  }
  for (int k = m - warm; k < m; ++k) backward(k);
  while (next_w < m) out.add(Do::W, 0, next_w++);
  return out.take();
}

// Section 2.2: 2 (p - r) - 1 forwards before the first backward.
Program zb_h2_program(const Placement& where, int rank) {
  Emitter out(where, rank);
  const int m = where.micros;
  int next_f = 0, next_w = 0;
  const int warm = std::min(2 * (where.ranks - rank) - 1, m);
  while (next_f < warm) out.add(Do::F, 0, next_f++);
  for (int i = 0; i < m; ++i) {
    out.add(Do::I, 0, i);
    // W before F: the other way round one micro-batch more is alive.
    if (i >= 2 * rank) out.add(Do::W, 0, next_w++);
    if (next_f < m) out.add(Do::F, 0, next_f++);
  }
  while (next_w < m) out.add(Do::W, 0, next_w++);
  return out.take();
}

namespace {

// Counts what comes next of each chunk and kind; micro-batches beyond the last are left out, which
// turns the order for 2p - 1 micro-batches into one for fewer.
class VeeOrder {
 public:
  VeeOrder(const Placement& where, int rank) : out_(where, rank), micros_(where.micros) {}

  void forward(int chunk) { next(Do::F, chunk); }
  void input(int chunk) { next(Do::I, chunk); }
  void weight(int chunk) { next(Do::W, chunk); }
  void both(int chunk) {
    input(chunk);
    weight(chunk);
  }
  int forwards(int chunk) const { return count_[0][chunk]; }
  Program finish() {
    for (int chunk : {1, 0}) {
      while (count_[2][chunk] < count_[1][chunk]) weight(chunk);
    }
    return out_.take();
  }

 private:
  void next(Do what, int chunk) {
    const int row = what == Do::F ? 0 : what == Do::I ? 1 : 2;
    const int micro = count_[row][chunk]++;
    if (micro < micros_) out_.add(what, chunk, micro);
  }
  Emitter out_;
  int micros_;
  int count_[3][2] = {};  // F, I, W of each chunk
};

}  // namespace

// Section 6: two chunks a rank, down and back, so that the last stage is beside the first.
Program zb_v_program(const Placement& where, int rank) {
  const int p = where.ranks, n = std::max(2 * p - 1, where.micros);
  VeeOrder out(where, rank);
  for (int i = 0; i < 2 * (p - rank) - 1; ++i) out.forward(0);
  for (int i = 0; i < rank; ++i) {
    out.forward(1);
    out.forward(0);
  }
  for (int i = 0; i < p - rank; ++i) {
    out.forward(1);
    out.both(1);
  }
  while (out.forwards(1) < out.forwards(0) || out.forwards(0) < n) {
    if (out.forwards(0) < n) out.forward(0);
    out.both(0);
    out.forward(1);
    out.both(1);
  }
  for (int i = 0; i < rank; ++i) {
    out.input(0);
    out.input(1);
  }
  for (int i = 0; i < p - rank; ++i) out.both(0);
  return out.finish();
}

}  // namespace shoestring
