#pragma once
// Products of FP8 matrices as tensor cores and the code around them make them, on a processor:
//
//   C[M, N] = sum over chunks of k, in order, of  d[m, n] * (s_a[m, chunk] * s_b[chunk, n])
//   d = sum over the chunk's k of the products of codes
//
// A chunk is `promotion` long, or as long as one scale along k where that is less: the total is
// kept in f32 outside the tensor core (DeepSeek-V3 report, section 3.5.2). d is made by one of
// three accumulators:
//
//   exact   the true sum (in f64, where sums of 128 E4M3 products are exact) rounded once to f32;
//           the two products and the sum above are rounded to f32 one by one. The definition that
//           kernels are compared with: the same bits on any machine.
//   fast    any f32 order: within 2^-20 of the sum of magnitudes. Codes are exact in bf16, so this
//           is the bf16 product with a step every 128. What training uses here.
//   hopper  as the tensor cores of sm_90 do: blocks of 32 products and the sum so far are aligned
//   to
//           the largest exponent, cut off towards zero below `bits` fraction bits, added exactly
//           and cut off to `bits` again (cf. MMA-Sim, arXiv 2511.10909; 13 bits on H100 and H800).
//
// An element depends on its row of op(A), its column of op(B) and K alone, whatever the number of
// threads; accumulation adds the finished product to C with one rounding. So `fast` fits exact
// mode.

#include "core/fp8/quantise.h"

namespace shoestring {

enum class Accumulator : uint8_t { fast, exact, hopper };

struct Fp8Arithmetic {
  Accumulator accumulator = Accumulator::fast;
  int64_t promotion = 128;  // 32, 64, 128, 256 or 512; 0: never (fast promotes all the same)
  int bits = 13;            // of hopper's fraction, at most 23
  friend bool operator==(const Fp8Arithmetic&, const Fp8Arithmetic&) = default;
};

// How far one scale of an operand reaches along k (0: over all of it), and whether it is a power of
// two, which `fast` folds into the operand.
struct Fp8Reach {
  int64_t depth = 0;
  bool folds = false;
};
// k after which a sum goes to the f32 total: promotion, or where a scale ends before that; 0: only
// at the end of k.
int64_t promotion_depth(const Fp8Arithmetic& arithmetic, const Fp8Reach& a, const Fp8Reach& b);

// One product. A is [M, K] or, transposed, [K, M]; B is [K, N] or, transposed, [N, K], all with
// dims before the last as rows. Scales along k must cover 32 or more. C is f32 or bf16 [M, N]; only
// f32 can be added to.
struct Fp8Product {
  Tensor c;
  Fp8Tensor a, b;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  Fp8Arithmetic arithmetic = {};
};
void fp8_product(Stream& stream, const Fp8Product& product);

// What the accumulators of single chunks (exact_chunks, hopper_chunks) are given. Codes are bytes;
// element (i, k) of op(A) is at a[i * a_row + k * a_step], (k, j) of op(B) at b[k * b_step + j *
// b_column]. Scales are per chunk: rows[chunk * rows_stride + i], columns[chunk * columns_stride +
// j]; the latter can be read up to the next multiple of 64 columns.
struct ChunkProblem {
  const uint8_t* a = nullptr;
  int64_t a_row = 0, a_step = 0;
  const uint8_t* b = nullptr;
  int64_t b_step = 0, b_column = 0;
  Dtype a_format = Dtype::f8e4m3, b_format = Dtype::f8e4m3;
  int64_t m = 0, n = 0, k = 0, chunk = 0;
  const float* rows = nullptr;
  int64_t rows_stride = 0;
  const float* columns = nullptr;
  int64_t columns_stride = 0;
  float* sums = nullptr;  // [m, sums_stride], the totals
  int64_t sums_stride = 0;
};

}  // namespace shoestring
