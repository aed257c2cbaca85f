#pragma once
// What this machine can reach: products of matrices and memory bandwidth, measured. The yardstick
// of every speed that is reported (MFU is the model's FLOP/s over the best product's).

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/matmul.h"

namespace shoestring {

// One product to measure; 2 * rows * columns * inner FLOP.
struct ProductCase {
  std::string name;
  int64_t rows, columns, inner;  // M, N, K
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;  // into f32, as weight gradients
};

// 1,024^3 and its doublings up to `largest`^3.
std::vector<ProductCase> cube_products(int64_t largest);

// The matrices of one block of a dense model and of the chunked head.
struct ProductSizes {
  int64_t tokens = 4096, width = 512, inner = 1408, vocabulary = 8192;
  int64_t qkv_width = 1024;    // query, key and value heads side by side
  int64_t output_width = 512;  // query heads
  int64_t head_tokens = 1024;  // rows of one chunk of the head
};
// For each: y = x w^T, dx = dy w, dw += dy^T x.
std::vector<ProductCase> training_products(const ProductSizes& sizes);

struct ProductRate {
  std::string name;
  Dtype dtype;
  double flops;  // FLOP/s: median over the rounds, the faster of our product and oneDNN's for cubes
};
// Every case in every type (f32, bf16), one after the other, `rounds` times over, so that a busy
// moment of the machine touches all of them alike. The first round is not counted.
std::vector<ProductRate> measure_products(Device& device, std::span<const ProductCase> cases,
                                          std::span<const Dtype> dtypes, int rounds);

// Bytes/s moved by the STREAM kernels (McCalpin 1995) on arrays far larger than the caches:
// copy c = a counts 2 arrays, triad a = b + s c counts 3.
struct MemoryBandwidth {
  double copy, triad;
};
MemoryBandwidth measured_bandwidth(Device& device);

}  // namespace shoestring
