#pragma once
// One matrix under an FP8 recipe: the three products of a linear, how its input is kept for the
// weight gradient, and the weight's codes, which live until the next optimiser step.
//
//   fprop  y  = x w^T    x 1 x 128 along I,  w 128 x 128             contracts over I
//   dgrad  dx = dy w     dy 1 x 128 along O, w 128 x 128             contracts over O
//   wgrad  dw = dy^T x   dy 128 x 1, x 128 x 1 made of the kept copy  contracts over tokens
//
// Both tilings of dy are made in dgrad, so that wgrad may run long after dy is gone.
//
// (DeepSeek-V3 report, section 3.3; the tiles are the recipe's.) Shapes: x [.., I], w [O, I],
// dy [.., O]. One layer belongs to one rank; it is not used by two threads at once.

#include <array>

#include "core/fp8/e5m6.h"
#include "core/fp8/probe.h"
#include "core/fp8/recipe.h"
#include "core/fp8/segments.h"
#include "core/param.h"

namespace shoestring {

// An input, or the gradient of an output, as it is kept for the weight gradient: codes and scales
// of FP8 or of E5M6, or the values themselves.
struct Fp8Kept {
  Tensor codes, scales, values;
  explicit operator bool() const { return codes || values; }
  template <class F>
  void each(F&& f) {
    f(codes), f(scales), f(values);
  }
};

class Fp8Layer {
 public:
  // `store` keeps the weight; its version tells when the weight has changed.
  Fp8Layer(const Fp8Recipe& recipe, const ParamStore& store, const Param& param);

  const Fp8Recipe& recipe() const { return recipe_; }
  const Param& param() const { return *param_; }
  // Of the input, shared by all layers that read the same value in the same encoding.
  const Fp8Encoding& input() const { return input_; }
  // Of the gradient of the output.
  const Fp8Encoding& gradient() const { return gradient_; }
  // Whether any product or the kept copy needs the input's codes.
  bool wants_codes() const { return recipe_.fprop || copy_ == Fp8Copy::fp8; }
  Fp8Copy copy() const { return copy_; }
  Dtype dtype() const { return store_->compute(); }

  // x8: the input in `input()`; empty where fprop stays in train.dtype.
  Tensor forward(Stream& stream, const Tensor& x, const Fp8Tensor& x8, const Tensor& w);
  // `stored`: the input in E5M6 where somebody has made it already.
  Fp8Kept keep(Stream& stream, const Tensor& x, const Fp8Tensor& x8,
               const E5M6Tensor& stored = {}) const;
  // Gives dx, and `owed` all that the weight gradient reads of dy.
  Tensor input_gradient(Stream& stream, const Tensor& dy, const Tensor& w, Fp8Kept& owed);
  // Both in parts: the products of some rows into memory that exists, which no probe sees, and what
  // is owed of all; dy8, where it serves for that too, may be empty.
  void multiply(Stream& stream, const Tensor& y, const Tensor& x, const Fp8Tensor& x8,
                const Tensor& w);
  void multiply_gradient(Stream& stream, const Tensor& dx, const Tensor& dy, const Fp8Tensor& dy8,
                         const Tensor& w);
  Fp8Kept owe(Stream& stream, const Tensor& dy, const Fp8Tensor& dy8) const;
  // Adds to dw.
  void weight_gradient(Stream& stream, const Fp8Kept& dy, const Fp8Kept& kept, const Tensor& dw);
  // The same from an input that was made again instead of kept; `full`: the input itself, which a
  // probe compares with.
  struct MadeAgain {
    Tensor input, full;
  };
  void weight_gradient(Stream& stream, const Fp8Kept& dy, const MadeAgain& x, const Tensor& dw);

  // While a probe is set every product is also made in train.dtype and compared, those that
  // recompute makes again excepted. Results are the same with and without.
  void set_probe(Fp8Probe* probe) { probe_ = probe; }
  bool probed() const { return probe_ != nullptr; }
  Fp8Probe* probe() const { return probe_; }

  // The weight's codes, with the scales along its inputs or, for dgrad, along its outputs. With
  // borders between the matrices of experts, each of them by itself.
  const Fp8Tensor& weight_codes(Stream& stream, const Tensor& w, bool along_outputs);
  Fp8Segments weight_segments(Stream& stream, const Tensor& w, const std::vector<int64_t>& borders,
                              bool along_outputs);
  // Gives back what they take, until they are asked for again.
  void forget_weight_codes() { weights_ = {}; }

 private:
  const Fp8Tensor& cached(Stream& stream, const Tensor& w, const std::vector<int64_t>& borders,
                          bool along_outputs);
  void compare_input(Stream& stream, const Tensor& dx, const Tensor& dy, const Fp8Tensor& dy8,
                     const Tensor& w);
  void multiply_values(Stream& stream, const Fp8Kept& dy, const Tensor& x, const Tensor& dw);
  // x8 was made of x, which only a probe asks for; it may be empty.
  void multiply_codes(Stream& stream, const Fp8Kept& dy, const Tensor& x, const Fp8Tensor& x8,
                      const Tensor& dw);
  // Runs `add`, which adds to dw, and compares what it added.
  template <class F>
  void compare_added(Stream& stream, const Fp8Kept& dy, const Tensor& full, const Tensor& dw,
                     F add);
  void compare(LinearProduct product, const Tensor& got, const Tensor& want);
  void tell(LinearProduct product, const Tensor& x, const Fp8Tensor& x8);

  Fp8Recipe recipe_;
  const ParamStore* store_;
  const Param* param_;
  Fp8Encoding input_, gradient_;
  Fp8Copy copy_;
  struct Cached {
    Fp8Tensor codes;
    int64_t version = -1;
  };
  std::array<Cached, 2> weights_;  // scales along inputs; along outputs
  Fp8Probe* probe_ = nullptr;
};

// Whether the recipe names the matrix; `layers`: blocks of the whole model.
bool multiplies_in_fp8(const Fp8Recipe& recipe, const ParamInfo& info, int64_t layers);

// What one model's layers do: which of its matrices are multiplied in FP8.
class Fp8Plan {
 public:
  // `layers`: blocks of the whole model.
  Fp8Plan(const Fp8Recipe& recipe, const ParamStore& store, int64_t layers);

  // Null: the matrix stays in train.dtype, by the recipe or because it fell back.
  Fp8Layer* layer(const Param& param) const;
  // All that the recipe names, in the order of the store; also those that fell back.
  const std::vector<Fp8Layer*>& layers() const { return list_; }
  const Fp8Recipe& recipe() const { return recipe_; }

  // For good: until the run ends, also over resumes. Between steps only: its codes go.
  void fall_back(const Param& param);
  bool fell_back(const Param& param) const { return fallen_.at(static_cast<size_t>(param.index)); }
  void set_probe(Fp8Probe* probe);

 private:
  Fp8Recipe recipe_;
  std::vector<std::unique_ptr<Fp8Layer>> by_index_;
  std::vector<Fp8Layer*> list_;
  std::vector<bool> fallen_;
};

}  // namespace shoestring
