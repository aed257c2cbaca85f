#include "core/matmul.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>

#include "absl/container/flat_hash_map.h"
#include "core/check.h"
#include "core/instruction_set.h"
#include "core/matmul_plain.h"
#include "core/panel_product.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "core/thin_product.h"

namespace shoestring {
namespace {

std::string text_of(const MatrixView& m, bool transposed) {
  return cat(name_of(m.dtype), " [", m.rows, ", ", m.columns, "]", transposed ? " transposed" : "");
}

void check_product(const MatrixView& c, const MatrixView& a, const MatrixView& b,
                   const MatmulSpec& spec) {
  const int64_t m = spec.transpose_a ? a.columns : a.rows,
                k = spec.transpose_a ? a.rows : a.columns;
  const int64_t n = spec.transpose_b ? b.rows : b.columns,
                q = spec.transpose_b ? b.columns : b.rows;
  const bool sizes = c.rows == m && c.columns == n && k == q && c.stride >= c.columns &&
                     a.stride >= a.columns && b.stride >= b.columns;
  const bool same = a.dtype == b.dtype && c.dtype == a.dtype &&
                    (a.dtype == Dtype::f32 || a.dtype == Dtype::f64 || a.dtype == Dtype::bf16);
  const bool mixed = a.dtype == Dtype::bf16 && b.dtype == Dtype::bf16 && c.dtype == Dtype::f32;
  const bool types = (same || mixed) && !(c.dtype == Dtype::bf16 && spec.accumulate);
  if (sizes && types) return;
  fail(cat("matrix product of ", text_of(a, spec.transpose_a), " and ",
           text_of(b, spec.transpose_b), spec.accumulate ? " added to " : " into ",
           text_of(c, false), sizes ? ": no such combination of types" : ": sizes do not match"));
}

void clear(const MatrixView& c) {
  const size_t width = size_of(c.dtype);
  for (int64_t i = 0; i < c.rows; ++i) {
    std::memset(c.data + static_cast<size_t>(i * c.stride) * width, 0,
                static_cast<size_t>(c.columns) * width);
  }
}

// oneDNN takes the team size from OpenMP's per-thread setting; every call here is one tile on one
// thread, which is what makes results independent of the number of threads.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

using DnnlType = dnnl::memory::data_type;

struct TileKey {
  std::array<int64_t, 6> sizes;  // M, N, K and the three strides
  Dtype operand, result;
  bool transpose_a, transpose_b, accumulate;
  double alpha;
  friend bool operator==(const TileKey&, const TileKey&) = default;
  template <class H>
  friend H AbslHashValue(H h, const TileKey& k) {
    return H::combine(std::move(h), k.sizes, k.operand, k.result, k.transpose_a, k.transpose_b,
                      k.accumulate, k.alpha);
  }
};

struct TileProduct {
  dnnl::memory::desc a, b, c;
  dnnl::matmul product;
};

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::memory::desc describe(int64_t rows, int64_t columns, int64_t stride, bool transposed,
                            Dtype dtype) {
  const auto type = dtype == Dtype::bf16 ? DnnlType::bf16 : DnnlType::f32;
  const auto strides = transposed ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1};
  return {{rows, columns}, type, strides};
}

TileProduct make_product(const TileKey& key) {
  const auto& s = key.sizes;
  const auto a = describe(s[0], s[2], s[3], key.transpose_a, key.operand);
  const auto b = describe(s[2], s[1], s[4], key.transpose_b, key.operand);
  const auto c = describe(s[0], s[1], s[5], false, key.result);
  dnnl::primitive_attr attributes;
  if (key.alpha != 1.0) attributes.set_output_scales(0, {static_cast<float>(key.alpha)});
  if (key.accumulate) {
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attributes.set_post_ops(add);
  }
  const dnnl::matmul::primitive_desc primitive({a, b, c}, attributes, cpu_engine());
  return {a, b, c, dnnl::matmul(primitive)};
}

// One call of oneDNN on the calling thread. Products are cached per thread and shape: preparing one
// costs more than a small product. The cache is bounded, for ragged shapes that never come back.
void run_tile(const TileKey& key, void* c, const void* a, const void* b) {
  constexpr size_t most_products = 1024;
  thread_local absl::flat_hash_map<TileKey, std::unique_ptr<TileProduct>> cache;
  thread_local dnnl::stream stream(cpu_engine());
  const OneThread one_thread;
  auto found = cache.find(key);
  if (found == cache.end()) {
    if (cache.size() >= most_products) cache.clear();
    found = cache.emplace(key, std::make_unique<TileProduct>(make_product(key))).first;
  }
  const TileProduct& tile = *found->second;
  const auto memory = [](const dnnl::memory::desc& desc, const void* data) {
    return dnnl::memory(desc, cpu_engine(), const_cast<void*>(data));
  };
  tile.product.execute(stream, {{DNNL_ARG_SRC, memory(tile.a, a)},
                                {DNNL_ARG_WEIGHTS, memory(tile.b, b)},
                                {DNNL_ARG_DST, memory(tile.c, c)}});
  stream.wait();
}

// Tile sizes are a function of the product's shape alone: about `target` wide, even in number where
// there is more than one, so that two threads finish together.
int64_t tile_size(int64_t size, int64_t target) {
  int64_t tiles = (size + target - 1) / target;
  if (tiles > 1) tiles += tiles % 2;
  const int64_t even = (size + tiles - 1) / tiles;
  return (even + 15) / 16 * 16;
}

void matmul_onednn(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
                   const MatmulSpec& spec) {
  const int64_t inner = spec.transpose_a ? a.rows : a.columns;
  const int64_t tile_rows = tile_size(c.rows, 256);
  const int64_t tile_columns = tile_size(c.columns, 1024);
  const int64_t across = (c.columns + tile_columns - 1) / tile_columns;
  const int64_t down = (c.rows + tile_rows - 1) / tile_rows;
  // A few rows take as long as eight: reading the weights is what takes the time.
  constexpr int64_t worth_a_thread = 1 << 24;  // multiplications, of which many wait for weights
  const int64_t work = std::max<int64_t>(c.rows, 8) * c.columns * inner;
  const int64_t threads = threads_for(device, work, worth_a_thread);
  // Whoever is free takes the next tile: a thread whose core is shared holds up nobody.
  parallel_for_dynamic(device, across * down, threads, [&](int64_t tile) {
    const int64_t i = tile / across * tile_rows, j = tile % across * tile_columns;
    const int64_t i_end = std::min(i + tile_rows, c.rows);
    const int64_t j_end = std::min(j + tile_columns, c.columns);
    const MatrixView part = c.slice_rows(i, i_end).slice_columns(j, j_end);
    const MatrixView a_part = spec.transpose_a ? a.slice_columns(i, i_end) : a.slice_rows(i, i_end);
    const MatrixView b_part = spec.transpose_b ? b.slice_rows(j, j_end) : b.slice_columns(j, j_end);
    const TileKey key = {{part.rows, part.columns, inner, a.stride, b.stride, c.stride},
                         a.dtype,
                         c.dtype,
                         spec.transpose_a,
                         spec.transpose_b,
                         spec.accumulate,
                         spec.alpha};
    run_tile(key, part.data, a_part.data, b_part.data);
  });
}

// Measured (docs/decisions/0002-matrix-products.md): oneDNN wins for 5 to 8 rows, which do not pay
// for packing (generation), where it has matrix tiles for bf16, and with AVX-512 in weight
// gradients: of f32 all, of bf16 the wide ones, whose B is the larger operand. Below AVX-512 it is
// up to twice as slow and has no bf16.
bool onednn_is_faster(Dtype operand, const MatmulSpec& spec, const MatrixView& c) {
  constexpr int64_t few_rows = 8;
  if (c.rows <= few_rows) return onednn_multiplies(operand);
  if (operand == Dtype::f32) return spec.transpose_a && instruction_set().starts_with("avx512");
  if (!has_bf16_products()) return false;
  return dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_amx ||
         (spec.transpose_a && c.columns > c.rows);
}

bool use_thin(const MatrixView& c, const MatrixView& a, const MatmulSpec& spec) {
  return !spec.exact && spec.library == ProductLibrary::fastest && is_thin(c, a, spec);
}

bool use_onednn(Dtype operand, const MatmulSpec& spec, const MatrixView& c) {
  if (spec.exact || spec.library == ProductLibrary::own) return false;
  if (spec.library == ProductLibrary::onednn) return onednn_multiplies(operand);
  return onednn_is_faster(operand, spec, c);
}

}  // namespace

MatrixView::MatrixView(const Tensor& tensor)
    : data(tensor.raw()),
      dtype(tensor.dtype()),
      rows(tensor.rows()),
      columns(tensor.columns()),
      stride(tensor.columns()) {}

MatrixView MatrixView::slice_rows(int64_t begin, int64_t end) const {
  if (begin < 0 || begin > end || end > rows) {
    fail(cat("rows ", begin, " to ", end, " of ", text_of(*this, false)));
  }
  const auto offset = begin * stride * static_cast<int64_t>(size_of(dtype));
  return {data + offset, dtype, end - begin, columns, stride};
}

MatrixView MatrixView::slice_columns(int64_t begin, int64_t end) const {
  if (begin < 0 || begin > end || end > columns) {
    fail(cat("columns ", begin, " to ", end, " of ", text_of(*this, false)));
  }
  return {data + begin * static_cast<int64_t>(size_of(dtype)), dtype, rows, end - begin, stride};
}

bool onednn_multiplies(Dtype operand) {
  return operand == Dtype::f32 ||
         (operand == Dtype::bf16 && instruction_set().starts_with("avx512"));
}

void matmul(Device& device, const MatrixView& c, const MatrixView& a, const MatrixView& b,
            const MatmulSpec& spec) {
  check_product(c, a, b, spec);
  if (c.rows == 0 || c.columns == 0) return;
  const int64_t inner = spec.transpose_a ? a.rows : a.columns;
  if (a.dtype == Dtype::f64) {
    matmul_plain<double, double, double>(device, c, a, b, spec);
  } else if (inner == 0) {
    if (!spec.accumulate) clear(c);  // an empty sum
  } else if (use_thin(c, a, spec)) {
    thin_product(device, c, a, b, spec);
  } else if (use_onednn(a.dtype, spec, c)) {
    matmul_onednn(device, c, a, b, spec);
  } else {
    panel_product(device, c, a, b, spec);
  }
}

}  // namespace shoestring
