#include "core/product_check.h"

#include <cstring>

#include "core/random.h"

namespace shoestring {
namespace {

struct Form {
  Dtype operand, result;
  MatmulSpec spec;
};

// Sizes that no kernel divides evenly, K longer than a block.
constexpr int64_t m = 181, n = 150, k = 1203;

Tensor random_matrix(Device& device, int64_t rows, int64_t columns, Dtype dtype,
                     std::string_view name) {
  Tensor t(device, {rows, columns}, dtype, MemoryKind::workspace);
  const RandomStream random(1, name);
  dispatch_float(dtype, [&]<class T>() {
    for (size_t i = 0; i < t.span<T>().size(); ++i) {
      t.span<T>()[i] = static_cast<T>(static_cast<float>(random.uniform(i) - 0.5));
    }
  });
  return t;
}

bool same(const Tensor& x, const Tensor& y) {
  return std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

void in_pieces(const Form& form, const Tensor& c, const Tensor& a, const Tensor& b,
               const Product& product) {
  const int64_t row_cuts[] = {0, 1, 70, m}, column_cuts[] = {0, 31, n};
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 2; ++j) {
      const int64_t r0 = row_cuts[i], r1 = row_cuts[i + 1];
      const int64_t c0 = column_cuts[j], c1 = column_cuts[j + 1];
      const MatrixView av(a), bv(b);
      product(c.device(), MatrixView(c).slice_rows(r0, r1).slice_columns(c0, c1),
              form.spec.transpose_a ? av.slice_columns(r0, r1) : av.slice_rows(r0, r1),
              form.spec.transpose_b ? bv.slice_rows(c0, c1) : bv.slice_columns(c0, c1), form.spec);
    }
  }
}

bool form_is_row_independent(Device& device, Device& one_thread, Form form,
                             const Product& product) {
  const MatmulSpec& spec = form.spec;
  const Tensor a =
      random_matrix(device, spec.transpose_a ? k : m, spec.transpose_a ? m : k, form.operand, "a");
  const Tensor b =
      random_matrix(device, spec.transpose_b ? n : k, spec.transpose_b ? k : n, form.operand, "b");
  Tensor whole(device, {m, n}, form.result), other(device, {m, n}, form.result);
  product(device, whole, a, b, spec);
  product(one_thread, other, a, b, spec);
  if (!same(whole, other)) return false;
  in_pieces(form, other, a, b, product);
  if (!same(whole, other)) return false;
  if (form.result != Dtype::f32) return true;
  Tensor start = random_matrix(device, m, n, Dtype::f32, "c"), sum(device, {m, n}, Dtype::f32);
  for (size_t i = 0; i < start.span<float>().size(); ++i) {
    sum.span<float>()[i] = start.span<float>()[i] + whole.span<float>()[i];
  }
  form.spec.accumulate = true;
  product(device, start, a, b, form.spec);
  return same(start, sum);
}

}  // namespace

bool products_are_row_independent(Device& device, bool exact, const Product& product) {
  Device one_thread(device.kind(), device.index(), 1);
  for (const auto& [operand, result] :
       {std::pair(Dtype::f32, Dtype::f32), std::pair(Dtype::bf16, Dtype::bf16),
        std::pair(Dtype::bf16, Dtype::f32)}) {
    for (bool transpose_a : {false, true}) {
      for (bool transpose_b : {false, true}) {
        const MatmulSpec spec = {
            .transpose_a = transpose_a, .transpose_b = transpose_b, .exact = exact};
        if (!form_is_row_independent(device, one_thread, {operand, result, spec}, product)) {
          return false;
        }
      }
    }
  }
  return true;
}

}  // namespace shoestring
