#pragma once
// The `hopper` accumulator of core/fp8/product.h.

#include "core/fp8/product.h"

namespace shoestring {

// `bits`: fraction bits to which addends are aligned and sums are cut off, 1 to 23.
void hopper_chunks(const ChunkProblem& problem, int bits);

// One block: c + the sum of up to 32 products of codes, for tests and for reading.
struct HopperBlock {
  const uint8_t* a = nullptr;
  const uint8_t* b = nullptr;
  int64_t count = 0;
  Dtype a_format = Dtype::f8e4m3, b_format = Dtype::f8e4m3;
  int bits = 13;
};
float hopper_block(float c, const HopperBlock& block);

}  // namespace shoestring
