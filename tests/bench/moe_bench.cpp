// The experts of a sparse layer beside one dense mlp of the same total work: 64 experts, 6 chosen,
// 4,096 tokens, width 512, inner width 256, other loads in every iteration. Each iteration times
// both, forward and backward with weight gradients:
//
//   experts    dispatch, grouped products, SwiGLU, combine
//   dense      the same products and SwiGLU over the same number of rows with one expert
//
// `ratio` is dense / experts of the grouped products and SwiGLU alone, `ratio_whole` includes
// dispatch and combine. Medians; the goal is a ratio of 0.75 for even and uneven loads.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "core/ops/combine.h"
#include "core/ops/dispatch.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/linear.h"
#include "core/ops/swiglu.h"

namespace shoestring {
namespace {

struct Sizes {
  int64_t tokens, width, inner, experts, chosen;
  int64_t rows() const { return tokens * chosen; }
};
constexpr Sizes layer = {4096, 512, 256, 64, 6}, smoke = {64, 64, 32, 8, 2};

Tensor random_tensor(Device& device, Shape shape, Dtype dtype, float scale) {
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

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double seconds_of(const std::function<void()>& work) {
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

void experts_beside_dense(benchmark::State& state, Sizes s, Dtype dtype, bool zipf) {
  Device device;
  Stream stream = Stream::immediate(device);
  Experts experts(stream, s, s.experts, dtype), one(stream, s, 1, dtype);
  Choices choices(device, s, zipf);
  const Tensor x = random_tensor(device, {s.tokens, s.width}, dtype, 1);
  const Tensor wide = random_tensor(device, {s.rows(), s.width}, dtype, 1);
  const Tensor gates = random_tensor(device, {s.tokens, s.chosen}, Dtype::f32, 1);
  std::vector<double> exchange, grouped, dense;
  auto once = [&](bool count) {
    const Tensor ids = choices.draw();
    Dispatch::Saved sent;
    Combine::Saved summed;
    Tensors<3> rows;
    Tensor y, drows, dx;
    double apart = seconds_of([&] {
      rows = Dispatch::forward(stream, {.experts = s.experts}, {x, ids, gates}, sent);
    });
    double products = seconds_of([&] { y = experts.forward(rows[0], rows[1]); });
    apart += seconds_of([&] {
      Combine::forward(stream, {}, {y, gates, rows[2]}, summed);
      drows = Combine::grad_input(stream, {}, summed, {x})[0];
    });
    products += seconds_of([&] { dx = experts.backward(drows); });
    apart += seconds_of([&] {
      Dispatch::grad_input(stream, {.experts = s.experts}, sent, {dx, Tensor(), Tensor()});
    });
    const double whole = seconds_of([&] { one.dense(wide, wide); });
    if (!count) return;
    exchange.push_back(apart);
    grouped.push_back(products);
    dense.push_back(whole);
    state.SetIterationTime(apart + products);
  };
  once(false);  // touches fresh memory
  for (auto _ : state) once(true);
  state.counters["dense_ms"] = 1e3 * median(dense);
  state.counters["grouped_ms"] = 1e3 * median(grouped);
  state.counters["exchange_ms"] = 1e3 * median(exchange);
  state.counters["ratio"] = median(dense) / median(grouped);
  state.counters["ratio_whole"] = median(dense) / (median(grouped) + median(exchange));
}

const bool registered = [] {
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (bool zipf : {false, true}) {
      for (bool small : {false, true}) {
        const std::string name = std::string(small ? "smoke_moe/" : "moe/") +
                                 (zipf ? "zipf/" : "uniform/") + std::string(name_of(dtype));
        benchmark::RegisterBenchmark(name.c_str(), experts_beside_dense, small ? smoke : layer,
                                     dtype, zipf)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace shoestring
