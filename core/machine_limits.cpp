#include "core/machine_limits.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

#include "core/ops/convert.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Values between -1 and 1, whether read as f32 or as pairs of bf16; no zeros, which some processors
// multiply faster.
void fill_with_pairs(const Tensor& t) {
  auto* halves = reinterpret_cast<BFloat16*>(t.raw());
  for (int64_t i = 0; i < 2 * t.elements(); ++i) {
    halves[i] = BFloat16(static_cast<float>(i * 7919 % 1999 - 999) / 1000.0f);
  }
}

// One memory for the operands of all cases: as long as the longest needs.
class Operands {
 public:
  Operands(Device& device, std::span<const ProductCase> cases) : device_(device) {
    int64_t longest[3] = {1, 1, 1};
    for (const ProductCase& c : cases) {
      longest[0] = std::max(longest[0], c.rows * c.inner);
      longest[1] = std::max(longest[1], c.inner * c.columns);
      longest[2] = std::max(longest[2], c.rows * c.columns);
    }
    for (int i = 0; i < 3; ++i) {
      memory_[i] = Tensor(device, {longest[i]}, Dtype::f32, MemoryKind::workspace);
      fill_with_pairs(memory_[i]);
    }
  }
  void multiply(const ProductCase& c, Dtype dtype, ProductLibrary library) {
    const auto view = [&](int i, int64_t rows, int64_t columns, Dtype type) {
      return MatrixView(memory_[i].raw(), type, rows, columns, columns);
    };
    const auto a =
        c.transpose_a ? view(0, c.inner, c.rows, dtype) : view(0, c.rows, c.inner, dtype);
    const auto b =
        c.transpose_b ? view(1, c.columns, c.inner, dtype) : view(1, c.inner, c.columns, dtype);
    matmul(device_, view(2, c.rows, c.columns, c.accumulate ? Dtype::f32 : dtype), a, b,
           {.transpose_a = c.transpose_a,
            .transpose_b = c.transpose_b,
            .accumulate = c.accumulate,
            .library = library});
  }

 private:
  Device& device_;
  Tensor memory_[3];
};

bool is_cube(const ProductCase& c) { return c.rows == c.columns && c.columns == c.inner; }

}  // namespace

std::vector<ProductCase> cube_products(int64_t largest) {
  std::vector<ProductCase> cases;
  for (int64_t n = 1024; n <= largest; n *= 2) {
    cases.push_back({.name = cat(n, "^3"), .rows = n, .columns = n, .inner = n});
  }
  return cases;
}

std::vector<ProductCase> training_products(const ProductSizes& s) {
  struct Weight {
    std::string_view name;
    int64_t tokens, in, out;
  };
  const Weight weights[] = {{"qkv", s.tokens, s.width, s.qkv_width},
                            {"output", s.tokens, s.output_width, s.width},
                            {"gate_up", s.tokens, s.width, 2 * s.inner},
                            {"down", s.tokens, s.inner, s.width},
                            {"head", s.head_tokens, s.width, s.vocabulary}};
  std::vector<ProductCase> cases;
  for (const Weight& w : weights) {
    cases.push_back({.name = cat(w.name, ".forward"),
                     .rows = w.tokens,
                     .columns = w.out,
                     .inner = w.in,
                     .transpose_b = true});
    cases.push_back(
        {.name = cat(w.name, ".grad_input"), .rows = w.tokens, .columns = w.in, .inner = w.out});
    cases.push_back({.name = cat(w.name, ".grad_weight"),
                     .rows = w.out,
                     .columns = w.in,
                     .inner = w.tokens,
                     .transpose_a = true,
                     .accumulate = true});
  }
  return cases;
}

std::vector<ProductRate> measure_products(Device& device, std::span<const ProductCase> cases,
                                          std::span<const Dtype> dtypes, int rounds) {
  Operands operands(device, cases);
  struct Run {
    const ProductCase* product;
    Dtype dtype;
    ProductLibrary library;
    size_t rate;  // which result it counts for
    std::vector<double> seconds;
  };
  std::vector<Run> runs;
  std::vector<ProductRate> rates;
  for (Dtype dtype : dtypes) {
    for (const ProductCase& c : cases) {
      runs.push_back({&c, dtype, ProductLibrary::fastest, rates.size(), {}});
      // The machine's limit is whoever is fastest; training runs what `fastest` picks.
      if (is_cube(c) && onednn_multiplies(dtype)) {
        runs.push_back({&c, dtype, ProductLibrary::onednn, rates.size(), {}});
      }
      rates.push_back({c.name, dtype, 0});
    }
  }
  for (int round = 0; round <= rounds; ++round) {
    for (Run& run : runs) {
      const double seconds =
          seconds_of([&] { operands.multiply(*run.product, run.dtype, run.library); });
      if (round > 0) run.seconds.push_back(seconds);
    }
  }
  for (const Run& run : runs) {
    const ProductCase& c = *run.product;
    const double flop = 2.0 * static_cast<double>(c.rows) * static_cast<double>(c.columns) *
                        static_cast<double>(c.inner);
    rates[run.rate].flops = std::max(rates[run.rate].flops, flop / median(run.seconds));
  }
  return rates;
}

MemoryBandwidth measured_bandwidth(Device& device) {
  constexpr int64_t elements = 16 << 20;  // 64 MiB an array
  constexpr int64_t grain = 1 << 16;
  Stream stream = Stream::immediate(device);
  Tensor arrays[3];
  for (Tensor& t : arrays) {
    t = Tensor(device, {elements}, Dtype::f32, MemoryKind::workspace);
    fill(stream, t, 1.0);
  }
  float* a = arrays[0].data<float>();
  const float* b = arrays[1].data<float>();
  const float* c = arrays[2].data<float>();
  std::vector<double> copy, triad;
  for (int round = 0; round < 7; ++round) {
    copy.push_back(seconds_of([&] {
      parallel_for(device, elements, grain, [&](int64_t begin, int64_t end) {
        std::memcpy(a + begin, b + begin, static_cast<size_t>(end - begin) * sizeof(float));
      });
    }));
    triad.push_back(seconds_of([&] {
      parallel_for(device, elements, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) a[i] = b[i] + 3.0f * c[i];
      });
    }));
  }
  const double bytes = static_cast<double>(elements) * sizeof(float);
  return {.copy = 2 * bytes / median(copy), .triad = 3 * bytes / median(triad)};
}

}  // namespace shoestring
