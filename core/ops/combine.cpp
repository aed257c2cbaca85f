#include "core/ops/combine.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/combine.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/ops/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE void sum_some(const Tensor& rows, const Tensor& row_of, const Tensor& gates,
                         const Tensor& y, int64_t begin, int64_t end) {
  const int64_t d = y.columns(), chosen = row_of.columns();
  for (int64_t t = begin; t < end; ++t) {
    const int32_t* at = row_of.data<int32_t>() + t * chosen;
    const float* gate = gates ? gates.data<float>() + t * chosen : nullptr;
    T* to = y.data<T>() + t * d;
    for_lanes(d, [&](int64_t i, auto lanes) HWY_ATTR {
      Floats sum = set(0);
      for (int64_t k = 0; k < chosen; ++k) {
        if (at[k] < 0) continue;
        const Floats x = load(rows.data<T>() + at[k] * d + i, lanes);
        sum = gate ? hn::MulAdd(set(gate[k]), x, sum) : hn::Add(x, sum);
      }
      store(sum, to + i, lanes);
    });
  }
}

// One row's gradient and its gate's.
template <class T>
HWY_INLINE float spread_one(const T* dy, const T* row, float gate, T* drow, int64_t d) {
  Floats dot = set(0);
  for_lanes(d, [&](int64_t i, auto lanes) HWY_ATTR {
    const Floats slope = load(dy + i, lanes);
    dot = hn::MulAdd(slope, load(row + i, lanes), dot);
    store(hn::Mul(set(gate), slope), drow + i, lanes);
  });
  return sum(dot);
}

template <class T>
HWY_INLINE void spread_some(const Combine::Saved& saved, const Tensor& dy, const Tensor& drows,
                            const Tensor& dgates, int64_t begin, int64_t end) {
  const int64_t d = dy.columns(), chosen = saved.row_of.columns();
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t c = t * chosen; c < (t + 1) * chosen; ++c) {
      const int64_t row = saved.row_of.data<int32_t>()[c];
      if (row < 0) {
        dgates.data<float>()[c] = 0;
        continue;
      }
      dgates.data<float>()[c] =
          spread_one(dy.data<T>() + t * d, saved.rows.data<T>() + row * d,
                     saved.gates.data<float>()[c], drows.data<T>() + row * d, d);
    }
  }
}

void sum_f32(const Tensor& rows, const Tensor& row_of, const Tensor& gates, const Tensor& y,
             int64_t begin, int64_t end) {
  sum_some<float>(rows, row_of, gates, y, begin, end);
}
void sum_bf16(const Tensor& rows, const Tensor& row_of, const Tensor& gates, const Tensor& y,
              int64_t begin, int64_t end) {
  sum_some<BFloat16>(rows, row_of, gates, y, begin, end);
}
void spread_f32(const Combine::Saved& saved, const Tensor& dy, const Tensor& drows,
                const Tensor& dgates, int64_t begin, int64_t end) {
  spread_some<float>(saved, dy, drows, dgates, begin, end);
}
void spread_bf16(const Combine::Saved& saved, const Tensor& dy, const Tensor& drows,
                 const Tensor& dgates, int64_t begin, int64_t end) {
  spread_some<BFloat16>(saved, dy, drows, dgates, begin, end);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_bf16);
HWY_EXPORT(spread_f32);
HWY_EXPORT(spread_bf16);

// The same in f64, by plain loops.
void sum_f64(const Tensor& rows, const Tensor& row_of, const Tensor& gates, const Tensor& y,
             int64_t begin, int64_t end) {
  const int64_t d = y.columns(), chosen = row_of.columns();
  for (int64_t t = begin; t < end; ++t) {
    double* to = y.data<double>() + t * d;
    std::fill_n(to, d, 0.0);
    for (int64_t c = t * chosen; c < (t + 1) * chosen; ++c) {
      const int64_t row = row_of.data<int32_t>()[c];
      if (row < 0) continue;
      const double gate = gates ? gates.data<double>()[c] : 1;
      for (int64_t i = 0; i < d; ++i) to[i] += gate * rows.data<double>()[row * d + i];
    }
  }
}

void spread_f64(const Combine::Saved& saved, const Tensor& dy, const Tensor& drows,
                const Tensor& dgates, int64_t begin, int64_t end) {
  const int64_t d = dy.columns(), chosen = saved.row_of.columns();
  for (int64_t c = begin * chosen; c < end * chosen; ++c) {
    const int64_t row = saved.row_of.data<int32_t>()[c];
    double dot = 0;
    if (row >= 0) {
      const double gate = saved.gates.data<double>()[c];
      for (int64_t i = 0; i < d; ++i) {
        const double slope = dy.data<double>()[c / chosen * d + i];
        dot += slope * saved.rows.data<double>()[row * d + i];
        drows.data<double>()[row * d + i] = gate * slope;
      }
    }
    dgates.data<double>()[c] = dot;
  }
}

struct Sum {
  Tensor rows, row_of, gates, y;
};
void sum_cpu(Stream& stream, const Sum& arguments) {
  stream.run([&device = stream.device(), a = arguments] {
    const int64_t grain = rows_a_range(a.y.columns() * a.row_of.columns());
    parallel_for(device, a.y.rows(), grain, [&](int64_t begin, int64_t end) {
      const Dtype dtype = a.y.dtype();
      if (dtype == Dtype::f64) return sum_f64(a.rows, a.row_of, a.gates, a.y, begin, end);
      if (dtype == Dtype::bf16)
        return HWY_DYNAMIC_DISPATCH(sum_bf16)(a.rows, a.row_of, a.gates, a.y, begin, end);
      HWY_DYNAMIC_DISPATCH(sum_f32)(a.rows, a.row_of, a.gates, a.y, begin, end);
    });
  });
}

struct Spread {
  Combine::Saved saved;
  Tensor dy, drows, dgates;
};
// Rows that nobody chose: left over because choices were dropped, or padding.
void clear_unused(const Spread& a) {
  std::vector<bool> used(static_cast<size_t>(a.drows.rows()));
  for (const int32_t row : a.saved.row_of.span<int32_t>()) {
    if (row >= 0) used[static_cast<size_t>(row)] = true;
  }
  if (used.empty()) return;
  const size_t bytes = a.drows.bytes() / used.size();
  for (size_t row = 0; row < used.size(); ++row) {
    if (!used[row]) std::memset(a.drows.raw() + row * bytes, 0, bytes);
  }
}
void spread_cpu(Stream& stream, const Spread& arguments) {
  stream.run([&device = stream.device(), a = arguments] {
    clear_unused(a);
    const int64_t grain = rows_a_range(a.dy.columns() * a.saved.row_of.columns());
    parallel_for(device, a.dy.rows(), grain, [&](int64_t begin, int64_t end) {
      const Dtype dtype = a.dy.dtype();
      if (dtype == Dtype::f64) return spread_f64(a.saved, a.dy, a.drows, a.dgates, begin, end);
      if (dtype == Dtype::bf16)
        return HWY_DYNAMIC_DISPATCH(spread_bf16)(a.saved, a.dy, a.drows, a.dgates, begin, end);
      HWY_DYNAMIC_DISPATCH(spread_f32)(a.saved, a.dy, a.drows, a.dgates, begin, end);
    });
  });
}

}  // namespace

Tensor sum_rows(Stream& stream, std::string_view op, const Tensor& rows, const Tensor& row_of,
                const Tensor& gates) {
  Tensor y(stream.device(), {row_of.rows(), rows.columns()}, rows.dtype());
  on<const Sum&>(stream, op, sum_cpu, nullptr, Sum{rows, row_of, gates, y});
  return y;
}

Tensors<1> Combine::forward(Stream& stream, const Attributes&, const Tensors<3>& inputs,
                            Saved& saved) {
  const auto& [rows, gates, row_of] = inputs;
  check_tensor(name, "row_of", row_of, row_of.shape(), Dtype::i32);
  check_tensor(name, "gates", gates, row_of.shape(),
               rows.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
  saved = {.rows = rows, .gates = gates, .row_of = row_of};
  return {sum_rows(stream, name, rows, row_of, gates)};
}

Tensors<3> Combine::grad_input(Stream& stream, const Attributes&, const Saved& saved,
                               const Tensors<1>& dy) {
  if (!dy[0]) return {};
  check_tensor(name, "dy", dy[0], {saved.row_of.rows(), saved.rows.columns()}, saved.rows.dtype());
  const Spread a{.saved = saved,
                 .dy = dy[0],
                 .drows = Tensor(stream.device(), saved.rows.shape(), saved.rows.dtype()),
                 .dgates = Tensor(stream.device(), saved.gates.shape(), saved.gates.dtype())};
  on<const Spread&>(stream, name, spread_cpu, nullptr, a);
  return {a.drows, a.dgates, Tensor()};
}

}  // namespace shoestring
#endif  // HWY_ONCE
