#include "core/ops/dispatch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/check.h"
#include "core/ops/combine.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
int64_t rows_of_capacity(const Dispatch::Attributes& attributes, int64_t choices) {
  const auto even =
      static_cast<double>(choices) / static_cast<double>(std::max<int64_t>(attributes.experts, 1));
  return static_cast<int64_t>(std::ceil(attributes.capacity * even));
}

namespace {

struct Work {
  Dispatch::Attributes a;
  Tensor x, ids, gates, rows, offsets, row_of;
};

double gate_at(const Tensor& gates, int64_t choice) {
  return gates.dtype() == Dtype::f64 ? gates.data<double>()[choice]
                                     : static_cast<double>(gates.data<float>()[choice]);
}

// Choices (t * K + k) of each expert, in order of tokens.
std::vector<std::vector<int64_t>> choices_by_expert(const Work& w) {
  std::vector<std::vector<int64_t>> choices(static_cast<size_t>(w.a.experts));
  const std::span<const int32_t> ids = w.ids.span<int32_t>();
  for (size_t c = 0; c < ids.size(); ++c) {
    if (ids[c] < 0 || ids[c] >= w.a.experts) {
      fail(cat("[dispatch] token ", static_cast<int64_t>(c) / w.ids.columns(), " goes to expert ",
               ids[c], " of ", w.a.experts));
    }
    choices[static_cast<size_t>(ids[c])].push_back(static_cast<int64_t>(c));
  }
  return choices;
}

// The `limit` choices with the highest gates stay, in their order.
void drop_lowest(const Tensor& gates, int64_t limit, std::vector<int64_t>& choices) {
  if (static_cast<int64_t>(choices.size()) <= limit) return;
  const auto before = [&](int64_t a, int64_t b) {
    const double left = gate_at(gates, a), right = gate_at(gates, b);
    return left > right || (left == right && a < b);
  };
  std::sort(choices.begin(), choices.end(), before);
  choices.resize(static_cast<size_t>(limit));
  std::sort(choices.begin(), choices.end());
}

// Fills row_of and offsets; the choice of each row that is used.
std::vector<int64_t> lay_out(const Work& w) {
  std::vector<std::vector<int64_t>> choices = choices_by_expert(w);
  const int64_t limit = rows_of_capacity(w.a, w.ids.elements());
  int32_t* row_of = w.row_of.data<int32_t>();
  int32_t* offsets = w.offsets.data<int32_t>();
  std::fill_n(row_of, w.row_of.elements(), -1);
  std::vector<int64_t> rows;
  rows.reserve(static_cast<size_t>(w.ids.elements()));
  offsets[0] = 0;
  for (size_t e = 0; e < choices.size(); ++e) {
    if (w.a.capacity > 0) drop_lowest(w.gates, limit, choices[e]);
    for (int64_t c : choices[e]) {
      row_of[c] = static_cast<int32_t>(rows.size());
      rows.push_back(c);
    }
    offsets[e + 1] = static_cast<int32_t>(rows.size());
  }
  return rows;
}

struct LayoutWork {
  Work work;
  Tensor choice_of;
};
void lay_out_cpu(Stream& stream, const LayoutWork& arguments) {
  stream.run([a = arguments] {
    const std::vector<int64_t> choices = lay_out(a.work);
    const std::span<int32_t> to = a.choice_of.span<int32_t>();
    std::fill(to.begin(), to.end(), -1);
    for (size_t row = 0; row < choices.size(); ++row) to[row] = static_cast<int32_t>(choices[row]);
  });
}

void check_choices(const Tensor& ids, const Tensor& gates, Dtype wide) {
  check_tensor(Dispatch::name, "ids", ids, {ids.rows(), ids.columns()}, Dtype::i32);
  check_tensor(Dispatch::name, "gates", gates, ids.shape(), wide);
  if (ids.elements() > std::numeric_limits<int32_t>::max()) {
    fail(cat("[dispatch] ", ids.elements(), " rows do not fit 32-bit numbers"));
  }
}

void dispatch_cpu(Stream& stream, const Work& arguments) {
  stream.run([&device = stream.device(), w = arguments] {
    const std::vector<int64_t> choices = lay_out(w);
    const auto used = static_cast<int64_t>(choices.size());
    const size_t bytes = static_cast<size_t>(w.x.columns()) * size_of(w.x.dtype());
    parallel_for(device, w.rows.rows(), rows_a_range(w.x.columns()),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     std::byte* to = w.rows.raw() + static_cast<size_t>(row) * bytes;
                     if (row < used) {
                       const int64_t token = choices[static_cast<size_t>(row)] / w.ids.columns();
                       std::memcpy(to, w.x.raw() + static_cast<size_t>(token) * bytes, bytes);
                     } else {
                       std::memset(to, 0, bytes);
                     }
                   }
                 });
  });
}

}  // namespace

Tensors<3> Dispatch::forward(Stream& stream, const Attributes& a, const Tensors<3>& inputs,
                             Saved& saved) {
  const auto& [x, ids, gates] = inputs;
  check_tensor(name, "ids", ids, {x.rows(), ids.columns()}, Dtype::i32);
  check_choices(ids, gates, x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
  Device& device = stream.device();
  // The offsets are told to the step as well: no recompute policy drops them.
  const Work w{.a = a,
               .x = x,
               .ids = ids,
               .gates = gates,
               .rows = Tensor(device, {ids.elements(), x.columns()}, x.dtype()),
               .offsets = Tensor(device, {a.experts + 1}, Dtype::i32, MemoryKind::other),
               .row_of = Tensor(device, ids.shape(), Dtype::i32)};
  on<const Work&>(stream, name, dispatch_cpu, nullptr, w);
  saved = {.row_of = w.row_of};
  return {w.rows, w.offsets, w.row_of};
}

Tensors<3> Dispatch::grad_input(Stream& stream, const Attributes&, const Saved& saved,
                                const Tensors<3>& dy) {
  if (!dy[0]) return {};
  check_tensor(name, "drows", dy[0], {saved.row_of.elements(), dy[0].columns()}, dy[0].dtype());
  return {sum_rows(stream, name, dy[0], saved.row_of, Tensor()), Tensor(), Tensor()};
}

DispatchLayout lay_out_dispatch(Stream& stream, const Dispatch::Attributes& a, const Tensor& ids,
                                const Tensor& gates) {
  check_choices(ids, gates, gates.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
  Device& device = stream.device();
  auto numbers = [&device](Shape shape) {
    return Tensor(device, std::move(shape), Dtype::i32, MemoryKind::other);
  };
  const DispatchLayout layout{.offsets = numbers({a.experts + 1}),
                              .row_of = numbers(ids.shape()),
                              .choice_of = numbers({ids.elements()})};
  const Work work{.a = a,
                  .x = {},
                  .ids = ids,
                  .gates = gates,
                  .rows = {},
                  .offsets = layout.offsets,
                  .row_of = layout.row_of};
  on<const LayoutWork&>(stream, Dispatch::name, lay_out_cpu, nullptr, {work, layout.choice_of});
  return layout;
}

}  // namespace shoestring
