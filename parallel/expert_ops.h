#pragma once
// The ways of rows (parallel/expert_way.h) as ops of the tape. Each is the other's adjoint, but
// that a token's row goes to all its experts, so that its gradient sums what comes back from them.
//
//   expert_send    x [T, d] -> rows [R, d] at the experts. Gradient: one row a choice travels back
//                  in the type of drows, and dx_t sums them in the order of choices, in f32 (f64),
//                  rounded once: as core/ops/dispatch.h
//   expert_return  rows [R, d] -> the rows at the beginning of the way. Gradient: they travel there
//   expert_gates   gates [T, K] -> those of the choices at a relay [tokens here, K], 0 in free
//   slots
//
// With an encoding, what travels to the experts is quantised before it leaves, once, and arrives
// packed (core/fp8/packed_rows.h): x in expert_send, dy in expert_return. What travels home keeps
// its type.

#include <memory>
#include <optional>

#include "core/fp8/quantise.h"
#include "core/op.h"
#include "parallel/expert_plan.h"

namespace shoestring {

struct ExpertSend {
  static constexpr std::string_view name = "expert_send";
  static constexpr int num_inputs = 1, num_outputs = 1;
  struct Attributes {
    std::shared_ptr<const ExpertPlan> plan;
    std::optional<Fp8Encoding> encoding;
  };
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<ExpertSend>);

struct ExpertReturn {
  static constexpr std::string_view name = "expert_return";
  static constexpr int num_inputs = 1, num_outputs = 1;
  struct Attributes {
    std::shared_ptr<const ExpertWay> way;
    std::optional<Fp8Encoding> encoding;
  };
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& rows, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<ExpertReturn>);

struct ExpertGates {
  static constexpr std::string_view name = "expert_gates";
  static constexpr int num_inputs = 1, num_outputs = 1;
  struct Attributes {
    std::shared_ptr<const ExpertPlan> plan;  // with sums
  };
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& gates, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<ExpertGates>);

}  // namespace shoestring
