#include "parallel/expert_ops.h"

#include "core/fp8/packed_rows.h"
#include "core/ops/combine.h"

namespace shoestring {
namespace {

Tensor packed(Stream& stream, const Tensor& x, const std::optional<Fp8Encoding>& encoding) {
  return encoding ? pack_rows(stream, x, *encoding, MemoryKind::communication) : x;
}

}  // namespace

Tensors<1> ExpertSend::forward(Stream& stream, const Attributes& a, const Tensors<1>& x, Saved&) {
  return {travel(stream, a.plan->tokens, packed(stream, x[0], a.encoding))};
}

Tensors<1> ExpertSend::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                  const Tensors<1>& dy) {
  if (!dy[0]) return {};
  const Tensor home = travel_back(stream, a.plan->choices, dy[0]);
  return {sum_rows(stream, name, home, a.plan->own.row_of, Tensor())};
}

Tensors<1> ExpertReturn::forward(Stream& stream, const Attributes& a, const Tensors<1>& rows,
                                 Saved&) {
  return {travel_back(stream, *a.way, rows[0])};
}

Tensors<1> ExpertReturn::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                    const Tensors<1>& dy) {
  if (!dy[0]) return {};
  return {travel(stream, *a.way, packed(stream, dy[0], a.encoding))};
}

Tensors<1> ExpertGates::forward(Stream& stream, const Attributes& a, const Tensors<1>& gates,
                                Saved&) {
  const Tensor column = gates[0].reshape({gates[0].elements(), 1});
  return {travel(stream, a.plan->sums->gates, column).reshape(a.plan->sums->node_rows.shape())};
}

Tensors<1> ExpertGates::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                   const Tensors<1>& dy) {
  if (!dy[0]) return {};
  const Tensor column = dy[0].reshape({dy[0].elements(), 1});
  return {travel_back(stream, a.plan->sums->gates, column).reshape(a.plan->own.row_of.shape())};
}

}  // namespace shoestring
