#include "tests/bench/step/product_peak.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/matmul.h"
#include "core/ops/convert.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct Product {
  int64_t m, n, k;
  MatmulSpec spec;
  std::string_view role;
  std::vector<double> rates = {};

  std::string text() const { return cat(m, " x ", n, " x ", k, ", ", role); }
  double median() const {
    std::vector<double> sorted = rates;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

std::vector<Product> products_of(const PeakRequest& request) {
  std::vector<Product> all;
  auto add_linear = [&](int64_t out, int64_t in) {
    all.push_back({request.rows, out, in, {.transpose_b = true}, "forward"});
    all.push_back({request.rows, in, out, {}, "input gradient"});
    all.push_back(
        {out, in, request.rows, {.transpose_a = true, .accumulate = true}, "weight gradient"});
  };
  for (int64_t n : {1024, 2048, 4096}) all.push_back({n, n, n, {.transpose_b = true}, "square"});
  const ModelConfig& m = request.model;
  const int64_t q = m.heads * m.dim_of_head(), kv = m.kv_heads * m.dim_of_head();
  add_linear(q + 2 * kv, m.hidden);
  add_linear(m.hidden, q);
  add_linear(2 * m.ffn, m.hidden);
  add_linear(m.hidden, m.ffn);
  add_linear(m.vocabulary, m.hidden);
  return all;
}

// Values that are neither zero nor equal: some processors run faster on those.
Tensor operand(Device& device, Shape shape, Dtype dtype) {
  Tensor x(device, shape, Dtype::f32);
  for (int64_t i = 0; i < x.elements(); ++i) {
    x.data<float>()[i] = static_cast<float>(i * 2654435761 % 1000 - 500) / 500;
  }
  Stream stream = Stream::immediate(device);
  return dtype == Dtype::f32 ? x : convert(stream, x, dtype, MemoryKind::workspace);
}

void measure(Device& device, Dtype dtype, Product& p, int rounds_here) {
  const Tensor a = operand(device, p.spec.transpose_a ? Shape{p.k, p.m} : Shape{p.m, p.k}, dtype);
  const Tensor b = operand(device, p.spec.transpose_b ? Shape{p.n, p.k} : Shape{p.k, p.n}, dtype);
  const Tensor c = Tensor::zeros(device, {p.m, p.n}, p.spec.accumulate ? Dtype::f32 : dtype);
  for (int i = 0; i <= rounds_here; ++i) {
    const auto start = std::chrono::steady_clock::now();
    matmul(device, c, a, b, p.spec);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    // The first run makes the primitive and touches the memory.
    if (i > 0)
      p.rates.push_back(2 * static_cast<double>(p.m * p.n) * static_cast<double>(p.k) / seconds);
  }
}

}  // namespace

BestProduct best_product(const PeakRequest& request) {
  Device device(DeviceKind::cpu, 0, request.threads);
  std::vector<Product> products = products_of(request);
  for (int round = 0; round < request.rounds; ++round) {
    for (Product& p : products) measure(device, request.dtype, p, 2);
  }
  const auto best =
      std::max_element(products.begin(), products.end(),
                       [](const Product& a, const Product& b) { return a.median() < b.median(); });
  return {best->median(), best->text()};
}

}  // namespace shoestring
