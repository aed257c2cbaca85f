#include "core/ops/drop_choices.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct Work {
  DropChoices::Attributes a;
  Tensor ids, gates, kept;
};

// Not a number counts as the lowest, so that any gates have one order.
double gate_at(const Tensor& gates, int64_t choice) {
  const double gate = gates.dtype() == Dtype::f64
                          ? gates.data<double>()[choice]
                          : static_cast<double>(gates.data<float>()[choice]);
  return std::isnan(gate) ? -std::numeric_limits<double>::infinity() : gate;
}

void drop_cpu(Stream& stream, const Work& arguments) {
  stream.run([w = arguments] {
    const std::span<const int32_t> ids = w.ids.span<int32_t>();
    const std::span<int32_t> kept = w.kept.span<int32_t>();
    std::copy(ids.begin(), ids.end(), kept.begin());
    const int64_t limit = rows_of_capacity(w.a, w.ids.elements());
    const auto before = [&](int64_t a, int64_t b) {
      const double left = gate_at(w.gates, a), right = gate_at(w.gates, b);
      return left > right || (left == right && a < b);
    };
    for (std::vector<int64_t>& own : choices_by_expert(DropChoices::name, w.ids, w.a.experts)) {
      if (static_cast<int64_t>(own.size()) <= limit) continue;
      const auto first_dropped = own.begin() + limit;
      std::nth_element(own.begin(), first_dropped, own.end(), before);
      for (auto c = first_dropped; c != own.end(); ++c) kept[static_cast<size_t>(*c)] = -1;
    }
  });
}

}  // namespace

int64_t rows_of_capacity(const DropChoices::Attributes& a, int64_t choices) {
  const auto even =
      static_cast<double>(choices) / static_cast<double>(std::max<int64_t>(a.experts, 1));
  return static_cast<int64_t>(std::ceil(a.capacity * even));
}

std::vector<std::vector<int64_t>> choices_by_expert(std::string_view op, const Tensor& ids,
                                                    int64_t experts) {
  std::vector<std::vector<int64_t>> choices(static_cast<size_t>(experts));
  const std::span<const int32_t> all = ids.span<int32_t>();
  for (size_t c = 0; c < all.size(); ++c) {
    if (all[c] == -1) continue;
    if (all[c] < 0 || all[c] >= experts) {
      fail(cat("[", op, "] token ", static_cast<int64_t>(c) / ids.columns(), " goes to expert ",
               all[c], " of ", experts));
    }
    choices[static_cast<size_t>(all[c])].push_back(static_cast<int64_t>(c));
  }
  return choices;
}

Tensors<1> DropChoices::forward(Stream& stream, const Attributes& a, const Tensors<2>& inputs,
                                Saved&) {
  const auto& [ids, gates] = inputs;
  check_tensor(name, "ids", ids, {ids.rows(), ids.columns()}, Dtype::i32);
  check_tensor(name, "gates", gates, ids.shape(),
               gates.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
  if (!(a.capacity > 0)) fail(cat("[drop_choices] a capacity of ", a.capacity, " lets nobody in"));
  const Work w{
      .a = a, .ids = ids, .gates = gates, .kept = Tensor(stream.device(), ids.shape(), Dtype::i32)};
  on<const Work&>(stream, name, drop_cpu, nullptr, w);
  return {w.kept};
}

Tensors<2> DropChoices::grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>&) {
  return {};
}

}  // namespace shoestring
