// Ops between the products, at the sizes of a small model (4,096 tokens, width 512, inner width
// 1,408, vocabulary 8,192), beside what a plain copy of memory reaches: they should run near its
// bandwidth. `bytes/s` counts every tensor that must be read or written once.

#include <benchmark/benchmark.h>

#include <cstring>
#include <random>

#include "core/ops/embedding.h"
#include "core/ops/head_loss.h"
#include "core/ops/head_norm.h"
#include "core/ops/rms_norm.h"
#include "core/ops/split_qkv.h"
#include "core/ops/swiglu.h"
#include "core/parallel_for.h"

namespace shoestring {
namespace {

struct Sizes {
  int64_t tokens, width, inner, vocabulary, heads, kv_heads, head_dim;
};
constexpr Sizes model = {4096, 512, 1408, 8192, 8, 4, 64}, smoke = {64, 64, 96, 128, 2, 1, 32};

Tensor random_tensor(Device& device, Shape shape, Dtype dtype) {
  Tensor x(device, std::move(shape), dtype);
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> draw(-1, 1);
  for (int64_t i = 0; i < x.elements(); ++i) {
    if (dtype == Dtype::f32) {
      x.data<float>()[i] = draw(generator);
    } else {
      x.data<BFloat16>()[i] = BFloat16(draw(generator));
    }
  }
  return x;
}

Tensor random_ids(Device& device, int64_t n, int64_t below) {
  Tensor ids(device, {n}, Dtype::i32);
  std::mt19937 generator(1);
  for (int64_t i = 0; i < n; ++i) {
    ids.data<int32_t>()[i] = static_cast<int32_t>(generator() % static_cast<uint32_t>(below));
  }
  return ids;
}

Tensor positions(Device& device, int64_t n) {
  Tensor ids(device, {n}, Dtype::i32);
  for (int64_t i = 0; i < n; ++i) ids.data<int32_t>()[i] = static_cast<int32_t>(i % 1024);
  return ids;
}

struct Bench {
  Device device;
  Stream stream = Stream::immediate(device);
};

void count_bytes(benchmark::State& state, double bytes) {
  state.counters["bytes/s"] = benchmark::Counter(
      bytes, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

// Once before the clock starts: the first call touches fresh memory and makes the products' plans.
template <class F>
void repeat(benchmark::State& state, F&& body) {
  body();
  for (auto _ : state) body();
}

// The yardstick: as many bytes as the residual stream holds, read and written.
void copy(benchmark::State& state, Sizes s, Dtype) {
  Bench b;
  const auto bytes = static_cast<size_t>(s.tokens * s.inner) * 8;
  Tensor from = Tensor::zeros(b.device, {static_cast<int64_t>(bytes)}, Dtype::u8), to = from;
  to = Tensor::zeros(b.device, from.shape(), Dtype::u8);
  repeat(state, [&] {
    parallel_for(b.device, from.elements(), 4096, [&](int64_t begin, int64_t end) {
      std::memcpy(to.raw() + begin, from.raw() + begin, static_cast<size_t>(end - begin));
    });
  });
  count_bytes(state, 2.0 * static_cast<double>(bytes));
}

void rms_norm_forward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const Tensor x = random_tensor(b.device, {s.tokens, s.width}, dtype);
  const Tensor delta = random_tensor(b.device, {s.tokens, s.width}, dtype);
  const Tensor gain = random_tensor(b.device, {s.width}, dtype);
  repeat(state, [&] {
    RmsNorm::Saved saved;
    RmsNorm::forward(b.stream, {}, {x, delta}, {gain}, saved);
  });
  count_bytes(state, 4.0 * static_cast<double>(x.bytes()));
}

void rms_norm_backward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const Tensor x = random_tensor(b.device, {s.tokens, s.width}, dtype);
  const Tensor dh = random_tensor(b.device, {s.tokens, s.width}, dtype);
  const Tensor dn = random_tensor(b.device, {s.tokens, s.width}, dtype);
  const Tensor gain = random_tensor(b.device, {s.width}, dtype);
  const Tensor dgain = Tensor::zeros(b.device, {s.width}, Dtype::f32);
  RmsNorm::Saved saved;
  RmsNorm::forward(b.stream, {}, {x, x}, {gain}, saved);
  repeat(state, [&] { RmsNorm::grad_input(b.stream, {}, saved, {gain}, {dh, dn}, {dgain}); });
  count_bytes(state, 4.0 * static_cast<double>(x.bytes()));
}

void head_norm_forward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const Tensor x = random_tensor(b.device, {s.tokens, s.heads * s.head_dim}, dtype);
  const Tensor gain = random_tensor(b.device, {s.head_dim}, dtype);
  repeat(state, [&] {
    HeadNorm::Saved saved;
    HeadNorm::forward(b.stream, {}, {x}, {gain}, saved);
  });
  count_bytes(state, 2.0 * static_cast<double>(x.bytes()));
}

void head_norm_backward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const Tensor x = random_tensor(b.device, {s.tokens, s.heads * s.head_dim}, dtype);
  const Tensor gain = random_tensor(b.device, {s.head_dim}, dtype);
  const Tensor dgain = Tensor::zeros(b.device, {s.head_dim}, Dtype::f32);
  HeadNorm::Saved saved;
  HeadNorm::forward(b.stream, {}, {x}, {gain}, saved);
  repeat(state, [&] { HeadNorm::grad_input(b.stream, {}, saved, {gain}, {x}, {dgain}); });
  count_bytes(state, 3.0 * static_cast<double>(x.bytes()));
}

void swiglu_forward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const Tensor gu = random_tensor(b.device, {s.tokens, 2 * s.inner}, dtype);
  repeat(state, [&] {
    Swiglu::Saved saved;
    Swiglu::forward(b.stream, {}, {gu}, saved);
  });
  count_bytes(state, 1.5 * static_cast<double>(gu.bytes()));
}

void swiglu_backward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const Swiglu::Saved saved{random_tensor(b.device, {s.tokens, 2 * s.inner}, dtype)};
  const Tensor dy = random_tensor(b.device, {s.tokens, s.inner}, dtype);
  repeat(state, [&] { Swiglu::grad_input(b.stream, {}, saved, {dy}); });
  count_bytes(state, 2.5 * static_cast<double>(saved.gu.bytes()));
}

SplitQkv::Attributes split_attributes(Device& device, const Sizes& s) {
  return {.table = make_rope_table(device, {}, s.head_dim, 1024),
          .heads = s.heads,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim};
}

void split_qkv_forward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const auto attributes = split_attributes(b.device, s);
  const Tensor qkv =
      random_tensor(b.device, {s.tokens, (s.heads + 2 * s.kv_heads) * s.head_dim}, dtype);
  const Tensor at = positions(b.device, s.tokens);
  repeat(state, [&] {
    SplitQkv::Saved saved;
    SplitQkv::forward(b.stream, attributes, {qkv, at}, saved);
  });
  count_bytes(state, 2.0 * static_cast<double>(qkv.bytes()));
}

void split_qkv_backward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const auto attributes = split_attributes(b.device, s);
  const Tensor qkv =
      random_tensor(b.device, {s.tokens, (s.heads + 2 * s.kv_heads) * s.head_dim}, dtype);
  SplitQkv::Saved saved;
  const auto y =
      SplitQkv::forward(b.stream, attributes, {qkv, positions(b.device, s.tokens)}, saved);
  repeat(state, [&] { SplitQkv::grad_input(b.stream, attributes, saved, y); });
  count_bytes(state, 2.0 * static_cast<double>(qkv.bytes()));
}

void embedding_forward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const Tensor weight = random_tensor(b.device, {s.vocabulary, s.width}, dtype);
  const Tensor tokens = random_ids(b.device, s.tokens, s.vocabulary);
  double bytes = 0;
  repeat(state, [&] {
    NothingSaved none;
    Embedding::WeightSaved saved;
    bytes = static_cast<double>(
        Embedding::forward(b.stream, {}, {tokens}, {weight}, none, saved)[0].bytes());
  });
  count_bytes(state, 2.0 * bytes);
}

void embedding_backward(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const Tensor dx = random_tensor(b.device, {s.tokens, s.width}, dtype);
  const Tensor dw = Tensor::zeros(b.device, {s.vocabulary, s.width}, Dtype::f32);
  const Embedding::WeightSaved saved{random_ids(b.device, s.tokens, s.vocabulary)};
  repeat(state, [&] { Embedding::grad_weight(b.stream, {}, saved, {dx}, {dw}); });
  // dx read, a row of dw read and written for (at most) each token.
  count_bytes(state, static_cast<double>(dx.bytes()) + 8.0 * static_cast<double>(dx.elements()));
}

// The three products and the softmax between them; `flops/s` counts the products alone.
void head_loss(benchmark::State& state, Sizes s, Dtype dtype) {
  Bench b;
  const HeadLoss::Inputs inputs{random_tensor(b.device, {s.tokens, s.width}, dtype),
                                random_tensor(b.device, {s.vocabulary, s.width}, dtype),
                                random_ids(b.device, s.tokens, s.vocabulary)};
  Tensor dw = Tensor::zeros(b.device, {s.vocabulary, s.width}, Dtype::f32);
  repeat(state, [&] {
    Tensor dx;
    HeadLoss::forward(b.stream, {}, inputs, {.dx = &dx, .dw = &dw});
  });
  const double flops = 6.0 * static_cast<double>(s.tokens * s.width * s.vocabulary);
  state.counters["flops/s"] = benchmark::Counter(
      flops, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

// One wide column of products makes the rest of head_loss, the passes over logits, stand out.
void head_loss_narrow(benchmark::State& state, Sizes s, Dtype dtype) {
  s.width = 1;
  head_loss(state, s, dtype);
  count_bytes(state, 3.0 * 4 * static_cast<double>(s.tokens * s.vocabulary));
}

using Body = void (*)(benchmark::State&, Sizes, Dtype);

int register_all() {
  const std::pair<const char*, Body> bodies[] = {{"copy", copy},
                                                 {"rms_norm_forward", rms_norm_forward},
                                                 {"rms_norm_backward", rms_norm_backward},
                                                 {"head_norm_forward", head_norm_forward},
                                                 {"head_norm_backward", head_norm_backward},
                                                 {"swiglu_forward", swiglu_forward},
                                                 {"swiglu_backward", swiglu_backward},
                                                 {"split_qkv_forward", split_qkv_forward},
                                                 {"split_qkv_backward", split_qkv_backward},
                                                 {"embedding_forward", embedding_forward},
                                                 {"embedding_backward", embedding_backward},
                                                 {"head_loss", head_loss},
                                                 {"head_loss_narrow", head_loss_narrow}};
  for (const auto& [name, body] : bodies) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      for (bool small : {false, true}) {
        const std::string full = std::string("ops/") + name + "/" + std::string(name_of(dtype)) +
                                 (small ? "/smoke" : "");
        benchmark::RegisterBenchmark(full.c_str(), body, small ? smoke : model, dtype)
            ->UseRealTime();
      }
    }
  }
  return 0;
}

const int registered = register_all();

}  // namespace
}  // namespace shoestring
