#include "parallel/sequence_edges.h"

#include <cstring>

#include "core/check.h"
#include "core/tape.h"
#include "core/text.h"
#include "parallel/context_cut.h"

namespace shoestring {
namespace {

// Where a rank's chunks of each sequence lie: in its own tensor, [sequence][chunk], and in the rows
// of whole sequences.
struct Pieces {
  int64_t sequences = 1, chunk = 1;  // in rows
  int ranks = 1;
  size_t row = 0;  // bytes

  // of(own, whole, bytes) for each chunk of a rank's, in bytes from the first of either.
  template <class F>
  void each(int rank, F&& of) const {
    const ContextShare share{.rank = rank, .ranks = ranks, .chunk = chunk};
    const auto bytes = [this](int64_t rows) { return static_cast<size_t>(rows) * row; };
    for (int64_t b = 0; b < sequences; ++b) {
      for (int64_t i = 0; i < share.tokens(); i += chunk) {
        of(bytes(b * share.tokens() + i), bytes(b * share.row_length() + share.column(i)),
           bytes(chunk));
      }
    }
  }
};

// Of a tensor with the rows of `ranks` ranks.
Pieces pieces_of(const SequenceAttributes& a, const Tensor& x, int64_t ranks) {
  const int64_t rows = x.shape()[0], chunks = 2 * a.sequences * ranks;
  if (a.sequences < 1 || rows < 1 || rows % chunks != 0) {
    fail(cat("[sequence_edges] ", rows, " rows are not those of ", a.sequences, " sequences of ",
             ranks == 1 ? "one rank" : "all ranks", ", two chunks a rank"));
  }
  return {.sequences = a.sequences,
          .chunk = rows / chunks,
          .ranks = a.group->size(),
          .row = x.bytes() / static_cast<size_t>(rows)};
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
    p.each(rank, [&](size_t mine, size_t whole, size_t bytes) {
      std::memcpy(own.raw() + mine, all.raw() + whole, bytes);
    });
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
  stream.run([p, arrived, all, each = x[0].bytes()] {
    for (int r = 0; r < p.ranks; ++r) {
      const std::byte* from = arrived.raw() + static_cast<size_t>(r) * each;
      p.each(r, [&](size_t mine, size_t whole, size_t bytes) {
        std::memcpy(all.raw() + whole, from + mine, bytes);
      });
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
    p.each(rank, [&](size_t mine, size_t whole, size_t bytes) {
      std::memcpy(all.raw() + whole, dy.raw() + mine, bytes);
    });
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
