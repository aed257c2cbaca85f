#include "parallel/sequence_edges.h"

#include <cstring>

#include "core/check.h"
#include "core/tape.h"
#include "core/text.h"

namespace shoestring {
namespace {

// Pieces of L rows: [rank][sequence] as the ranks' tensors lie one behind the other, or
// [sequence][rank] as the rows of whole sequences do.
struct Pieces {
  int64_t ranks = 1, sequences = 1;
  size_t bytes = 0;  // of one

  size_t by_rank(int64_t rank, int64_t b) const {
    return static_cast<size_t>(rank * sequences + b) * bytes;
  }
  size_t by_sequence(int64_t rank, int64_t b) const {
    return static_cast<size_t>(b * ranks + rank) * bytes;
  }
};

Pieces pieces_of(const SequenceAttributes& a, const Tensor& own, int64_t times) {
  const int64_t rows = own.shape()[0] / times;
  if (a.sequences < 1 || rows % a.sequences != 0 || own.shape()[0] % times != 0) {
    fail(cat("[sequence_edges] ", own.shape()[0], " rows are not those of ", a.sequences,
             " sequences"));
  }
  return {.ranks = a.group->size(),
          .sequences = a.sequences,
          .bytes = own.bytes() / static_cast<size_t>(times * a.sequences)};
}

Tensor like(Stream& stream, const Tensor& x, int64_t rows) {
  Shape shape = x.shape();
  shape.set(0, rows);
  return Tensor(stream.device(), shape, x.dtype());
}

Tensor own_columns(Stream& stream, const SequenceAttributes& a, const Tensor& all) {
  const Pieces p = pieces_of(a, all, a.group->size());
  const Tensor own = like(stream, all, all.shape()[0] / p.ranks);
  stream.run([p, own, all, rank = a.group->rank()] {
    for (int64_t b = 0; b < p.sequences; ++b) {
      std::memcpy(own.raw() + p.by_rank(0, b), all.raw() + p.by_sequence(rank, b), p.bytes);
    }
  });
  return own;
}

}  // namespace

Tensors<1> GatherSequences::forward(Stream& stream, const Attributes& a, const Tensors<1>& x,
                                    Saved&) {
  const Pieces p = pieces_of(a, x[0], 1);
  const Tensor arrived = like(stream, x[0], x[0].shape()[0] * p.ranks);
  const std::vector<int64_t> counts(static_cast<size_t>(p.ranks), x[0].elements());
  a.group->all_gather({x[0].raw(), x[0].elements(), x[0].dtype()}, counts,
                      {arrived.raw(), arrived.elements(), arrived.dtype()}, stream);
  const Tensor all = like(stream, x[0], arrived.shape()[0]);
  stream.run([p, arrived, all] {
    for (int64_t b = 0; b < p.sequences; ++b) {
      for (int64_t r = 0; r < p.ranks; ++r) {
        std::memcpy(all.raw() + p.by_sequence(r, b), arrived.raw() + p.by_rank(r, b), p.bytes);
      }
    }
  });
  return {all};
}

Tensors<1> GatherSequences::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                       const Tensors<1>& dy) {
  return {own_columns(stream, a, dy[0])};
}

Tensors<1> KeepSequences::forward(Stream& stream, const Attributes& a, const Tensors<1>& x,
                                  Saved&) {
  return {own_columns(stream, a, x[0])};
}

Tensors<1> KeepSequences::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                     const Tensors<1>& dy) {
  const Pieces p = pieces_of(a, dy[0], 1);
  const Tensor all = like(stream, dy[0], dy[0].shape()[0] * p.ranks);
  stream.run([p, all, dy = dy[0], rank = a.group->rank()] {
    std::memset(all.raw(), 0, all.bytes());
    for (int64_t b = 0; b < p.sequences; ++b) {
      std::memcpy(all.raw() + p.by_sequence(rank, b), dy.raw() + p.by_rank(0, b), p.bytes);
    }
  });
  return {all};
}

namespace {

// Rows of the tensor ranks first, which restores the context rank's, then columns of all of them.
class Gather : public Boundary {
 public:
  Gather(Communicator& context, Boundary* rows, std::shared_ptr<int64_t> sequences)
      : context_(context), rows_(rows), sequences_(std::move(sequences)) {}
  Value cross(Tape& tape, const Value& x) override {
    const Value all = rows_ ? rows_->cross(tape, x) : x;
    return apply<GatherSequences>(tape, {.group = &context_, .sequences = *sequences_}, {all});
  }

 private:
  Communicator& context_;
  Boundary* rows_;
  std::shared_ptr<int64_t> sequences_;
};

class Keep : public Boundary {
 public:
  Keep(Communicator& context, Boundary* rows, std::shared_ptr<int64_t> sequences)
      : context_(context), rows_(rows), sequences_(std::move(sequences)) {}
  Value cross(Tape& tape, const Value& x) override {
    const Value own =
        apply<KeepSequences>(tape, {.group = &context_, .sequences = *sequences_}, {x});
    return rows_ ? rows_->cross(tape, own) : own;
  }

 private:
  Communicator& context_;
  Boundary* rows_;
  std::shared_ptr<int64_t> sequences_;
};

}  // namespace

SequenceEdges::SequenceEdges(Communicator& context, Boundary* gather_rows, Boundary* keep_rows)
    : gather_(std::make_unique<Gather>(context, gather_rows, sequences_)),
      keep_(std::make_unique<Keep>(context, keep_rows, sequences_)) {}

}  // namespace shoestring
