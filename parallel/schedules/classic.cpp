#include <algorithm>

#include "parallel/schedules/emitter.h"
#include "parallel/schedules/generators.h"

namespace shoestring {

// Facts: GPipe (arXiv 1811.06965), section 2.3.
Program gpipe_program(const Placement& where, int rank) {
  Emitter out(where, rank);
  for (int i = 0; i < where.micros; ++i) out.add(Do::F, 0, i);
  for (int i = 0; i < where.micros; ++i) out.add(Do::B, 0, i);
  return out.take();
}

// PipeDream-Flush (arXiv 2006.09503): at most p - r micro-batches are alive on rank r.
Program one_f_one_b_program(const Placement& where, int rank) {
  Emitter out(where, rank);
  const int m = where.micros, warm = std::min(where.ranks - 1 - rank, m);
  for (int i = 0; i < warm; ++i) out.add(Do::F, 0, i);
  for (int k = 0; k < m - warm; ++k) {
    out.add(Do::F, 0, warm + k);
    out.add(Do::B, 0, k);
  }
  for (int k = m - warm; k < m; ++k) out.add(Do::B, 0, k);
  return out.take();
}

// Megatron-LM's interleaved order (arXiv 2104.04473, section 2.2): groups of p micro-batches pass
// chunk after chunk.
Program interleaved_program(const Placement& where, int rank) {
  Emitter out(where, rank);
  const int p = where.ranks, v = where.chunks, m = where.micros;
  std::vector<std::pair<int, int>> order;  // {micro-batch, chunk}
  for (int group = 0; group < m; group += p) {
    for (int chunk = 0; chunk < v; ++chunk) {
      for (int i = group; i < std::min(group + p, m); ++i) order.emplace_back(i, chunk);
    }
  }
  const auto n = static_cast<int>(order.size());
  const auto forward = [&](int k) { out.add(Do::F, order[k].second, order[k].first); };
  const auto backward = [&](int k) { out.add(Do::B, v - 1 - order[k].second, order[k].first); };
  const int warm = std::min(2 * (p - 1 - rank) + (v - 1) * p, n);
  for (int k = 0; k < warm; ++k) forward(k);
  for (int k = warm; k < n; ++k) {
    forward(k);
    backward(k - warm);
  }
  for (int k = n - warm; k < n; ++k) backward(k);
  return out.take();
}

}  // namespace shoestring
