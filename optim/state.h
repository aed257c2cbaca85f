#pragma once
// Optimiser state as checkpoints see it: named pieces of parameters.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace shoestring {

// Elements [begin, end) of one parameter's state, in the order of the parameter's elements.
struct StateTensor {
  std::string name;  // of the parameter
  std::string kind;  // "m", "v", "momentum" or "ema"
  int64_t begin = 0, end = 0;
  Tensor values;  // f32 or bf16, [end - begin]; shares memory with the optimiser
};

// Copies the elements that `saved` and the pieces of `own` have in common (same parameter and
// kind), converting between f32 and bf16 (to nearest even). Returns how many were copied, so that
// a caller who loads the pieces of another sharding can count that all were found.
int64_t load_state(const StateTensor& saved, std::span<const StateTensor> own);

}  // namespace shoestring
