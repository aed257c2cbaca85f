#pragma once
// Collectives over the rows of a micro-batch as ops of the tape, each with its adjoint (sequence
// parallelism: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2). A group of t ranks shares
// T rows out, T / t consecutive ones a rank.
//
//   op           forward                                 backward
//   GatherRows   [T / t, n] -> [T, n], all ranks' rows   sums over ranks, this rank's rows of it
//   ScatterRows  [T, n] -> [T / t, n], this rank's rows  [T, n], all ranks' rows
//                of the sum over ranks
//   GatherAlike  as GatherRows                           this rank's rows, no sum: every rank goes
//                                                        on with the same values to the same end
//   KeepRows     [T, n] -> [T / t, n], this rank's rows  zeros elsewhere
//
// Sums are folds in rank order with one rounding (parallel/communicator.h).

#include "core/op.h"
#include "parallel/communicator.h"

namespace shoestring {

// T / t. Rows that cannot be shared out are a usage error.
int64_t rows_a_rank(const Communicator& group, int64_t rows);

struct RowAttributes {
  Communicator* group = nullptr;  // outlives the tape
};

struct GatherRows {
  static constexpr std::string_view name = "gather_rows";
  static constexpr int num_inputs = 1, num_outputs = 1;
  using Attributes = RowAttributes;
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<GatherRows>);

struct ScatterRows {
  static constexpr std::string_view name = "scatter_rows";
  static constexpr int num_inputs = 1, num_outputs = 1;
  using Attributes = RowAttributes;
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<ScatterRows>);

struct GatherAlike {
  static constexpr std::string_view name = "gather_alike";
  static constexpr int num_inputs = 1, num_outputs = 1;
  using Attributes = RowAttributes;
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<GatherAlike>);

struct KeepRows {
  static constexpr std::string_view name = "keep_rows";
  static constexpr int num_inputs = 1, num_outputs = 1;
  using Attributes = RowAttributes;
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<KeepRows>);

}  // namespace shoestring
