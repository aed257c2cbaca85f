#pragma once
// Where a sparse layer's router meets rows of a sequence that are shared out among tensor ranks
// (consecutive rows of the micro-batch) and context ranks (columns of every row,
// parallel/context_cut.h): the choice is made of all rows, because its losses are of whole
// sequences and its capacity of a whole micro-batch, and each rank goes on with its own.
//
//   GatherSequences  c ranks with [B L, n] each, L even -> [B (c L), n], the rows of the
//   micro-batch
//                    in one rank's order: of choices with equal gates a capacity drops the later.
//                    Gradient: this rank's rows of it, no sum: every rank goes on with the same
//                    values to the same end.
//   KeepSequences    the way back. Gradient: zeros elsewhere.

#include <memory>
#include <vector>

#include "core/op.h"
#include "core/seams.h"
#include "parallel/communicator.h"

namespace shoestring {

struct SequenceAttributes {
  Communicator* group = nullptr;  // of the context axis; outlives the tape
  int64_t sequences = 0;          // B
};

struct GatherSequences {
  static constexpr std::string_view name = "gather_sequences";
  static constexpr int num_inputs = 1, num_outputs = 1;
  using Attributes = SequenceAttributes;
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<GatherSequences>);

struct KeepSequences {
  static constexpr std::string_view name = "keep_sequences";
  static constexpr int num_inputs = 1, num_outputs = 1;
  using Attributes = SequenceAttributes;
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<1>& x, Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<KeepSequences>);

// The two edges of a router. `rows`: those of the tensor axis (null: one rank there).
class SequenceEdges {
 public:
  // The communicator outlives this, and this the tapes.
  SequenceEdges(Communicator& context, Boundary* gather_rows, Boundary* keep_rows);
  // Of the micro-batch whose forward pass comes next.
  void set_sequences(int64_t sequences) { *sequences_ = sequences; }
  Boundary* gather() const { return gather_.get(); }
  Boundary* keep() const { return keep_.get(); }

 private:
  std::shared_ptr<int64_t> sequences_ = std::make_shared<int64_t>(0);
  std::unique_ptr<Boundary> gather_, keep_;
};

}  // namespace shoestring
