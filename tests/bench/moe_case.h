#pragma once
// What the benchmarks of sparse layers share: sizes, the choices of tokens, and the experts'
// grouped products.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "core/ops/grouped_linear.h"
#include "core/ops/linear.h"
#include "core/ops/swiglu.h"

namespace shoestring {

struct Sizes {
  int64_t tokens, width, inner, experts, chosen;
  int64_t rows() const { return tokens * chosen; }
};
inline constexpr Sizes layer = {4096, 512, 256, 64, 6}, smoke = {64, 64, 32, 8, 2};

inline Tensor random_tensor(Device& device, Shape shape, Dtype dtype, float scale) {
  Tensor x(device, std::move(shape), dtype);
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> draw(-scale, scale);
  dispatch_float(dtype, [&]<class T>() {
    for (T& v : x.span<T>()) v = static_cast<T>(draw(generator));
  });
  return x;
}

// Each token's experts: the largest of log weight + Gumbel noise, which draws without repetition.
class Choices {
 public:
  Choices(Device& device, const Sizes& s, bool zipf) : device_(device), s_(s), weight_(s.experts) {
    for (size_t e = 0; e < weight_.size(); ++e) {
      weight_[e] = zipf ? -std::log(static_cast<double>(e + 1)) : 0;
    }
  }
  // i32 [T, K]; other experts are the popular ones every time.
  Tensor draw() {
    std::shuffle(weight_.begin(), weight_.end(), generator_);
    Tensor ids(device_, {s_.tokens, s_.chosen}, Dtype::i32);
    std::uniform_real_distribution<double> uniform(1e-9, 1);
    std::vector<std::pair<double, int32_t>> keys(weight_.size());
    for (int64_t t = 0; t < s_.tokens; ++t) {
      for (size_t e = 0; e < keys.size(); ++e) {
        keys[e] = {weight_[e] - std::log(-std::log(uniform(generator_))), static_cast<int32_t>(e)};
      }
      std::partial_sort(keys.begin(), keys.begin() + s_.chosen, keys.end(), std::greater<>());
      for (int64_t k = 0; k < s_.chosen; ++k) {
        ids.data<int32_t>()[t * s_.chosen + k] = keys[static_cast<size_t>(k)].second;
      }
    }
    return ids;
  }

 private:
  Device& device_;
  Sizes s_;
  std::vector<double> weight_;
  std::mt19937_64 generator_{7};
};

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

inline double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The two matrices of all experts (or of one), their gradients, forward and backward.
struct Experts {
  Stream& stream;
  Tensor gate_up, down, dgate_up, ddown;

  Experts(Stream& stream, const Sizes& s, int64_t experts, Dtype dtype) : stream(stream) {
    Device& device = stream.device();
    gate_up = random_tensor(device, {experts * 2 * s.inner, s.width}, dtype, 0.05f);
    down = random_tensor(device, {experts * s.width, s.inner}, dtype, 0.05f);
    dgate_up = Tensor::zeros(device, gate_up.shape(), Dtype::f32);
    ddown = Tensor::zeros(device, down.shape(), Dtype::f32);
  }

  // y of the rows and their gradient for dy, through grouped products.
  Tensor forward(const Tensor& x, const Tensor& offsets) {
    const Tensor gu = GroupedLinear::forward(stream, {}, {x, offsets}, {gate_up}, in1, w1)[0];
    const Tensor product = Swiglu::forward(stream, {}, {gu}, saved)[0];
    return GroupedLinear::forward(stream, {}, {product, offsets}, {down}, in2, w2)[0];
  }
  Tensor backward(const Tensor& dy) {
    const Tensor dproduct = GroupedLinear::grad_input(stream, {}, in2, {down}, {dy})[0];
    GroupedLinear::grad_weight(stream, {}, w2, {dy}, {ddown});
    const Tensor dgu = Swiglu::grad_input(stream, {}, saved, {dproduct})[0];
    const Tensor dx = GroupedLinear::grad_input(stream, {}, in1, {gate_up}, {dgu})[0];
    GroupedLinear::grad_weight(stream, {}, w1, {dgu}, {dgate_up});
    return dx;
  }
  void dense(const Tensor& x, const Tensor& dy) {
    NothingSaved none;
    Linear::WeightSaved first, second;
    const Tensor gu = Linear::forward(stream, {}, {x}, {gate_up}, none, first)[0];
    const Tensor product = Swiglu::forward(stream, {}, {gu}, saved)[0];
    Linear::forward(stream, {}, {product}, {down}, none, second);
    const Tensor dproduct = Linear::grad_input(stream, {}, none, {down}, {dy})[0];
    Linear::grad_weight(stream, {}, second, {dy}, {ddown});
    const Tensor dgu = Swiglu::grad_input(stream, {}, saved, {dproduct})[0];
    Linear::grad_input(stream, {}, none, {gate_up}, {dgu});
    Linear::grad_weight(stream, {}, first, {dgu}, {dgate_up});
  }

 private:
  GroupedLinear::InputSaved in1, in2;
  GroupedLinear::WeightSaved w1, w2;
  Swiglu::Saved saved;
};

}  // namespace shoestring
