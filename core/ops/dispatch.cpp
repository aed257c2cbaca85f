#include "core/ops/dispatch.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "core/check.h"
#include "core/ops/combine.h"
#include "core/ops/drop_choices.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct Work {
  Dispatch::Attributes a;
  Tensor x, ids, rows, offsets, row_of;
};

// Fills row_of and offsets; the choice of each row that is used.
std::vector<int64_t> lay_out(const Work& w) {
  const std::vector<std::vector<int64_t>> choices =
      choices_by_expert(Dispatch::name, w.ids, w.a.experts);
  int32_t* row_of = w.row_of.data<int32_t>();
  int32_t* offsets = w.offsets.data<int32_t>();
  std::fill_n(row_of, w.row_of.elements(), -1);
  std::vector<int64_t> rows;
  rows.reserve(static_cast<size_t>(w.ids.elements()));
  offsets[0] = 0;
  for (size_t e = 0; e < choices.size(); ++e) {
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

void check_choices(const Tensor& ids) {
  check_tensor(Dispatch::name, "ids", ids, {ids.rows(), ids.columns()}, Dtype::i32);
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

Tensors<3> Dispatch::forward(Stream& stream, const Attributes& a, const Tensors<2>& inputs,
                             Saved& saved) {
  const auto& [x, ids] = inputs;
  check_tensor(name, "ids", ids, {x.rows(), ids.columns()}, Dtype::i32);
  check_choices(ids);
  Device& device = stream.device();
  // The offsets are told to the step as well: no recompute policy drops them.
  const Work w{.a = a,
               .x = x,
               .ids = ids,
               .rows = Tensor(device, {ids.elements(), x.columns()}, x.dtype()),
               .offsets = Tensor(device, {a.experts + 1}, Dtype::i32, MemoryKind::other),
               .row_of = Tensor(device, ids.shape(), Dtype::i32)};
  on<const Work&>(stream, name, dispatch_cpu, nullptr, w);
  saved = {.row_of = w.row_of};
  return {w.rows, w.offsets, w.row_of};
}

Tensors<2> Dispatch::grad_input(Stream& stream, const Attributes&, const Saved& saved,
                                const Tensors<3>& dy) {
  if (!dy[0]) return {};
  check_tensor(name, "drows", dy[0], {saved.row_of.elements(), dy[0].columns()}, dy[0].dtype());
  return {sum_rows(stream, name, dy[0], saved.row_of, Tensor()), Tensor()};
}

DispatchLayout lay_out_dispatch(Stream& stream, const Dispatch::Attributes& a, const Tensor& ids) {
  check_choices(ids);
  Device& device = stream.device();
  auto numbers = [&device](Shape shape) {
    return Tensor(device, std::move(shape), Dtype::i32, MemoryKind::other);
  };
  const DispatchLayout layout{.offsets = numbers({a.experts + 1}),
                              .row_of = numbers(ids.shape()),
                              .choice_of = numbers({ids.elements()})};
  const Work work{
      .a = a, .x = {}, .ids = ids, .rows = {}, .offsets = layout.offsets, .row_of = layout.row_of};
  on<const LayoutWork&>(stream, Dispatch::name, lay_out_cpu, nullptr, {work, layout.choice_of});
  return layout;
}

}  // namespace shoestring
