// Matrix products of one training step of a small model in every form, ours beside oneDNN's, in CPU
// time of the calling thread's device: items/s are FLOP/s.

#include <benchmark/benchmark.h>

#include "core/machine_limits.h"
#include "core/text.h"

namespace shoestring {
namespace {

void multiply(benchmark::State& state, const ProductCase& c, Dtype dtype, ProductLibrary library) {
  Device device;
  const Tensor a(device, c.transpose_a ? Shape{c.inner, c.rows} : Shape{c.rows, c.inner}, dtype);
  const Tensor b(device, c.transpose_b ? Shape{c.columns, c.inner} : Shape{c.inner, c.columns},
                 dtype);
  const Tensor out = Tensor::zeros(device, {c.rows, c.columns}, c.accumulate ? Dtype::f32 : dtype);
  for (const Tensor& t : {a, b}) {
    dispatch_float(dtype, [&]<class T>() {
      for (int64_t i = 0; i < t.elements(); ++i) {
        t.data<T>()[i] = static_cast<T>(static_cast<float>(i * 7919 % 1999 - 999) / 1000.0f);
      }
    });
  }
  const MatmulSpec spec = {.transpose_a = c.transpose_a,
                           .transpose_b = c.transpose_b,
                           .accumulate = c.accumulate,
                           .library = library};
  matmul(device, out, a, b, spec);
  for (auto _ : state) matmul(device, out, a, b, spec);
  state.SetItemsProcessed(state.iterations() * 2 * c.rows * c.columns * c.inner);
}

void add(const ProductCase& c, const std::string& prefix) {
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (const auto& [name, library] :
         {std::pair("own", ProductLibrary::own), std::pair("onednn", ProductLibrary::onednn)}) {
      benchmark::RegisterBenchmark(cat(prefix, "/", c.name, "/", name_of(dtype), "/", name).c_str(),
                                   [c, dtype, library = library](benchmark::State& state) {
                                     multiply(state, c, dtype, library);
                                   })
          ->UseRealTime();
    }
  }
}

const bool registered = [] {
  for (const ProductCase& c : cube_products(2048)) add(c, "product");
  for (const ProductCase& c : training_products({})) add(c, "product");
  const ProductSizes small = {.tokens = 32,
                              .width = 16,
                              .inner = 24,
                              .vocabulary = 64,
                              .qkv_width = 32,
                              .output_width = 16,
                              .head_tokens = 32};
  for (const ProductCase& c : training_products(small)) add(c, "smoke_product");
  return true;
}();

}  // namespace
}  // namespace shoestring
