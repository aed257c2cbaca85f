#pragma once
// Optimiser state as checkpoints see it: named pieces of parameters.

#include <cstdint>
#include <string>

#include "core/tensor.h"

namespace shoestring {

// Elements [begin, end) of one parameter's state, in the order of the parameter's elements.
struct StateTensor {
  std::string name;  // of the parameter
  std::string kind;  // "m", "v", "momentum" or "ema"
  int64_t begin = 0, end = 0;
  Tensor values;  // f32 or bf16, [end - begin]; shares memory with the optimiser
};

}  // namespace shoestring
