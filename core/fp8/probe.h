#pragma once
// What one comparison of FP8 products with bf16 ones found, layer by layer and product by product:
// how far the results are apart, how large the operands' tiles are, and what their codes lost.

#include <array>
#include <cstdint>
#include <map>
#include <utility>

#include "core/fp8/quantise.h"

namespace shoestring {

// y = x w^T, dx = dy w, dw = dy^T x.
enum class LinearProduct : uint8_t { fprop, dgrad, wgrad };
inline constexpr int num_linear_products = 3;
std::string_view name_of(LinearProduct product);

struct ProbeFigures {
  double difference = 0, norm = 0;                // sums of squares: FP8 - bf16, and bf16
  double values = 0, saturated = 0, flushed = 0;  // of both operands; cut off, turned into 0
  // Tiles by the exponent of their largest magnitude: bucket i counts 2^(i - 64) <= amax <
  // 2^(i - 63), the first and the last one also what lies beyond them. Tiles of zeros, which have
  // no exponent, are apart; tiles that are not finite are not counted.
  static constexpr int buckets = 128;
  std::array<double, buckets> amax = {};
  double zeros = 0;

  double relative_error() const;
  void add(const ProbeFigures& other);
};

class Fp8Probe {
 public:
  // The forward pass is over: products of it that are made from here on are made again, by
  // recompute, and were compared the first time.
  void end_forward() { forward_ended_ = true; }
  void begin_forward() { forward_ended_ = false; }  // of a further part of the model
  bool watches_forward() const { return !forward_ended_; }

  // Parameters by their index. `got` and `want` have one shape; x is what was quantised.
  void compare(int param, LinearProduct product, const Tensor& got, const Tensor& want);
  void tell(int param, LinearProduct product, const Tensor& x, const Fp8Tensor& quantised);

  using Key = std::pair<int, LinearProduct>;
  const std::map<Key, ProbeFigures>& figures() const { return figures_; }

 private:
  std::map<Key, ProbeFigures> figures_;
  bool forward_ended_ = false;
};

}  // namespace shoestring
