#pragma once
// The products of all experts of a sparse layer under an FP8 recipe: rows sorted by expert, each
// expert's rows times its own matrix, as core/fp8/layer.h multiplies one. Tiles restart at every
// border between experts and, because a call sees one micro-batch, between micro-batches: no layout
// of ranks changes the numbers.
//
// Shapes: x [R, I], w [E O, I], dy and y [R, O]; borders: E + 1 row numbers, expert e has rows
// [borders[e], borders[e + 1]). Rows behind the last border are zeros in results and never read.

#include <vector>

#include "core/fp8/layer.h"
#include "core/fp8/segments.h"
#include "core/matmul.h"

namespace shoestring {

class Fp8Experts {
 public:
  // `layer`: of the matrices of all experts, one below the other.
  Fp8Experts(Stream& stream, Fp8Layer& layer, std::vector<int64_t> borders);

  // y, and with `kept` what is kept of x for the weight gradient.
  Tensor forward(const Tensor& x, const Tensor& w, Fp8Kept* kept);
  // dx, and in `owed` all that the weight gradient reads of dy.
  Tensor input_gradient(const Tensor& dy, const Tensor& w, Fp8Kept& owed);
  // Adds to dw, each expert's finished product at once.
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
  Tensor rows_like(const Tensor& x, int64_t columns) const;

  Stream& stream_;
  Fp8Layer& layer_;
  std::vector<int64_t> borders_, matrices_;  // rows of tokens, and of w by O
  int64_t inputs_, outputs_;                 // of one expert
};

}  // namespace shoestring
