#pragma once
// The products of all experts of a sparse layer under an FP8 recipe: rows sorted by expert, each
// expert's rows times its own matrix, as core/fp8/layer.h multiplies one. Tiles restart at every
// border between experts and, because a call sees one micro-batch, between micro-batches: no layout
// of ranks changes the numbers.
//
// Rows of several ranks' micro-batches (sources) may meet here, each expert's rows by source: then
// borders tell the segments of (expert, source), and tiles restart at each of them.
//
// Between ranks the tokens that experts are given, and the gradients of their outputs, travel as
// codes (core/fp8/packed_rows.h), and here nobody reads anything else of them. One rank computes
// the same: its weight gradient of the second matrices reads the codes of dy quantised anew, as
// that of the first ones reads the codes of x.
//
// Shapes: x [R, I], w [E O, I], dy and y [R, O]; borders: E sources + 1 row numbers,
// segment i has rows [borders[i], borders[i + 1]) of expert i / sources. Rows behind the last
// border are zeros in results and never read.

#include <vector>

#include "core/fp8/layer.h"
#include "core/fp8/segments.h"
#include "core/matmul.h"

namespace shoestring {

class Fp8Experts {
 public:
  // `layer`: of the matrices of all experts, one below the other.
  Fp8Experts(Stream& stream, Fp8Layer& layer, std::vector<int64_t> borders, int64_t sources = 1);

  // y, and with `kept` what is kept of x for the weight gradient. x and dy may be packed.
  Tensor forward(const Tensor& x, const Tensor& w, Fp8Kept* kept);
  // dx, and in `owed` all that the weight gradient reads of dy.
  Tensor input_gradient(const Tensor& dy, const Tensor& w, Fp8Kept& owed);
  // Adds to dw, each expert's finished product at once. dw: core/ops/grouped_linear.h.
  void weight_gradient(const Fp8Kept& dy, const Fp8Kept& kept, const Tensor& dw);
  // The same from an input that was made again instead of kept.
  void weight_gradient(const Fp8Kept& dy, const Fp8Layer::MadeAgain& x, const Tensor& dw);

  // Any rows in the layer's input encoding, and back.
  Fp8Kept store(const Tensor& x) const;
  Tensor load(const Fp8Kept& kept, Dtype to) const;

 private:
  enum class Form : uint8_t { forward, input, weight };
  void multiply(Form form, const Tensor& c, const Fp8Segments& a, const Fp8Segments& b) const;
  void multiply_full(Form form, const Tensor& c, const Tensor& a, const Tensor& b) const;
  void multiply_input(const Tensor& dx, const Tensor& dy, const Fp8Segments& dy8, const Tensor& w);
  // x8 was made of `full`, which only a probe asks for; it may be empty.
  void add_weight_gradient(const Fp8Kept& dy, const Fp8Segments& x8, const Tensor& full,
                           const Tensor& dw);
  void tell(LinearProduct product, const Tensor& x, const Fp8Segments& x8);
  void compare_weight(const Tensor& before, const Tensor& dy, const Tensor& full, const Tensor& dw);
  Tensor matrix_gradient(const Tensor& dw, int64_t segment) const;
  Tensor rows_like(const Tensor& x, int64_t columns) const;
  Fp8Segments codes_of(const Tensor& rows, int64_t columns, const Fp8Encoding& encoding,
                       MemoryKind kind) const;
  int64_t matrix_of(int64_t segment) const { return segment / sources_; }

  Stream& stream_;
  Fp8Layer& layer_;
  std::vector<int64_t> borders_, matrices_;  // rows of tokens, and of w by O
  int64_t sources_;
  int64_t inputs_, outputs_;  // of one expert
};

// Whether the recipe says that the rows which these experts are given, or the gradients of their
// outputs, are sent in FP8; and whether they travel packed just now: not while a probe compares
// with what they were made of. Packed or not, the numbers are the same.
bool input_is_sent(const Fp8Layer& layer);
bool gradient_is_sent(const Fp8Layer& layer);
inline bool packs_input(const Fp8Layer& layer) { return input_is_sent(layer) && !layer.probed(); }
inline bool packs_gradient(const Fp8Layer& layer) {
  return gradient_is_sent(layer) && !layer.probed();
}

}  // namespace shoestring
