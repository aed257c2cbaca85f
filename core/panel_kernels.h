#pragma once
// The inner parts of a matrix product of our own (core/panel_product.cpp has the loops around
// them): operands are packed into panels of 32-bit units, a kernel multiplies a panel of A by a
// panel of B, a finishing pass writes the result. The scheme is that of Goto and van de Geijn,
// "Anatomy of High-Performance Matrix Multiplication" (2008).
//
// A panel of width w is stored [units][w]: unit u of lane i at u * w + i. Lanes are rows of op(A)
// or columns of op(B). A unit is one f32, or two neighbouring bf16 along k where the processor
// multiplies such pairs; elsewhere bf16 is widened to f32 while it is packed, panel by panel.
// An element's sum runs over the units in order, whatever the width of its panel.

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace shoestring {

// A strip of an operand in its own memory. One of the two steps is 1.
struct Strip {
  const std::byte* data;      // element (lane 0, k 0)
  int64_t lane_step, k_step;  // in elements
  int64_t lanes;              // how many exist; the panel may be wider
  int64_t depth;              // K
  int64_t element_size;       // bytes
  int64_t prefetch_k;         // lanes that are neighbours: how far ahead to prefetch, 0 = not

  Strip slice(int64_t k_begin, int64_t k_end) const {
    return {data + k_begin * k_step * element_size,
            lane_step,
            k_step,
            lanes,
            k_end - k_begin,
            element_size,
            prefetch_k};
  }
};

// What one panel product does: c[i, j] = (or +=) the sum over units of a[u, i] * b[u, j]; the
// scaled kernels multiply that sum by (row_scales[i] * column_scales[j]) first.
struct PanelPair {
  const float* a;
  const float* b;
  int64_t units;
  float* c;
  int64_t stride;  // of c's rows
  bool add;
  const float* row_scales = nullptr;
  const float* column_scales = nullptr;
};

// Rows of finished sums on their way into the result: out = alpha * sum (+ out).
struct Finish {
  const float* sums;
  int64_t sums_stride;
  std::byte* out;
  int64_t out_stride;  // in elements
  int64_t rows, columns;
  Dtype dtype;  // f32 or bf16
  bool accumulate;
  float alpha;
};

constexpr int most_panel_rows = 14;

struct PanelKernels {
  int64_t rows;        // the widest panel of A, at most most_panel_rows
  int64_t columns;     // the width of a panel of B
  int64_t k_per_unit;  // 1 or 2
  // Writes up to `pack_slack` units past the end of a panel whose width is no multiple of 4: pack
  // neighbours in ascending order.
  void (*pack)(const Strip& strip, int64_t width, float* to);
  void (*multiply[most_panel_rows + 1])(
      const PanelPair&);  // by the width of A's panel; [0] is null
  void (*multiply_scaled[most_panel_rows + 1])(const PanelPair&);
  void (*finish)(const Finish&);
};
constexpr int64_t pack_slack = 4;

// For operands of f32 or bf16, for the instruction set in force.
PanelKernels panel_kernels(Dtype operand);

// core/bf16_pairs.cpp: fills in the sizes and `multiply` for pairs of bf16, which need instructions
// that Highway does not know.
void use_bf16_pairs(PanelKernels& kernels);

}  // namespace shoestring
