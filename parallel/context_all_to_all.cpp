#include "parallel/context_all_to_all.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "core/check.h"
#include "core/tape.h"
#include "core/text.h"
#include "parallel/context_cut.h"

namespace shoestring {
namespace {

using Part = HeadExchange::Part;

// One tensor of an exchange, on both sides.
struct Crossing {
  Part part;
  Tensor local;  // [B*L, heads*width]
  Tensor whole;  // [B*S, heads_here*width]
};

int64_t heads_here(const Part& p, int64_t ranks) { return p.heads * p.copies / ranks; }

// A rank's piece of a message: for each tensor its rows of tokens, with the heads that the pair
// exchanges.
class Exchange {
 public:
  Exchange(Stream& stream, const HeadExchange& e, std::vector<Crossing> list)
      : stream_(stream),
        ranks_(*e.ranks),
        batch_(e.batch),
        share_(context_share(e.length * e.ranks->size(), e.ranks->rank(), e.ranks->size())),
        list_(std::move(list)) {
    for (const Crossing& x : list_) elements_ += batch_ * e.length * row_elements(x);
    const Shape shape{elements_ * ranks_.size()};
    const Dtype dtype = list_[0].local.dtype();
    out_ = Tensor(stream.device(), shape, dtype, MemoryKind::communication);
    in_ = Tensor(stream.device(), shape, dtype, MemoryKind::communication);
  }

  // local -> whole: each rank is sent its heads of my tokens.
  void to_whole() {
    pack(&Exchange::copy_local, true);
    swap();
    pack(&Exchange::copy_whole, false);
  }
  // whole -> local: each rank is sent my heads of its tokens; copies of a head are summed.
  void to_local() {
    pack(&Exchange::copy_whole, true);
    swap();
    stream_.run([x = *this] { x.collect(); });
  }

 private:
  // Exchange is copied into the stream's work, so that its tensors live until then.
  void pack(void (Exchange::*copy)(const Crossing&, int, std::byte*, bool) const, bool out) {
    stream_.run([x = *this, copy, out] {
      const Tensor& buffer = out ? x.out_ : x.in_;
      std::byte* piece = buffer.raw();
      for (int peer = 0; peer < x.ranks_.size(); ++peer) {
        for (const Crossing& crossing : x.list_) {
          (x.*copy)(crossing, peer, piece, out);
          piece += x.piece_bytes(crossing);
        }
      }
    });
  }
  void swap() {
    const std::vector<int64_t> counts(static_cast<size_t>(ranks_.size()), elements_);
    const int64_t all = elements_ * ranks_.size();
    ranks_.all_to_all({out_.raw(), all, out_.dtype()}, counts, {in_.raw(), all, in_.dtype()},
                      counts, stream_);
  }

  int64_t row_elements(const Crossing& x) const {
    return heads_here(x.part, ranks_.size()) * x.part.width;
  }
  size_t row_bytes(const Crossing& x) const {
    return static_cast<size_t>(row_elements(x)) * size_of(x.local.dtype());
  }
  size_t piece_bytes(const Crossing& x) const {
    return static_cast<size_t>(batch_ * share_.tokens()) * row_bytes(x);
  }
  // The peer's heads of this rank's tokens, to the piece or from it.
  void copy_local(const Crossing& x, int peer, std::byte* piece, bool to_piece) const {
    const size_t bytes = row_bytes(x), stride = x.local.bytes() / x.local.rows();
    const int64_t first = peer * heads_here(x.part, ranks_.size()) / x.part.copies;
    const size_t at = static_cast<size_t>(first * x.part.width) * size_of(x.local.dtype());
    for (int64_t t = 0; t < x.local.rows(); ++t, piece += bytes) {
      std::byte* const row = x.local.raw() + static_cast<size_t>(t) * stride + at;
      to_piece ? std::memcpy(piece, row, bytes) : std::memcpy(row, piece, bytes);
    }
  }
  // This rank's heads of the peer's tokens.
  void copy_whole(const Crossing& x, int peer, std::byte* piece, bool to_piece) const {
    const size_t bytes = row_bytes(x);
    ContextShare theirs = share_;
    theirs.rank = peer;
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t i = 0; i < theirs.tokens(); ++i, piece += bytes) {
        const int64_t token = b * theirs.row_length() + theirs.column(i);
        std::byte* const row = x.whole.raw() + static_cast<size_t>(token) * bytes;
        to_piece ? std::memcpy(piece, row, bytes) : std::memcpy(row, piece, bytes);
      }
    }
  }

  void collect() const {
    std::byte* piece = in_.raw();
    for (int peer = 0; peer < ranks_.size(); ++peer) {
      for (const Crossing& x : list_) {
        // With copies the pieces of one head follow one another, and the first holds their sum.
        if (x.part.copies == 1) {
          copy_local(x, peer, piece, false);
        } else if (peer % x.part.copies == 0) {
          dispatch_float(in_.dtype(), [&]<class T>() { sum_copies<T>(x, peer, piece); });
        }
        piece += piece_bytes(x);
      }
    }
  }
  template <class T>
  void sum_copies(const Crossing& x, int peer, std::byte* piece) const {
    using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const int64_t count = batch_ * share_.tokens() * row_elements(x);
    T* const to = reinterpret_cast<T*>(piece);
    for (int64_t i = 0; i < count; ++i) {
      Sum sum = static_cast<Sum>(to[i]);
      for (int64_t c = 1; c < x.part.copies; ++c) sum += static_cast<Sum>(to[c * elements_ + i]);
      to[i] = static_cast<T>(sum);
    }
    copy_local(x, peer, piece, false);
  }

  Stream& stream_;
  Communicator& ranks_;
  int64_t batch_;
  ContextShare share_;
  std::vector<Crossing> list_;
  int64_t elements_ = 0;  // of one rank's piece
  Tensor out_, in_;
};

Shape local_shape(const HeadExchange& e, const Part& p) {
  return {e.batch * e.length, p.heads * p.width};
}
Shape whole_shape(const HeadExchange& e, const Part& p) {
  const int64_t ranks = e.ranks->size();
  return {e.batch * e.length * ranks, heads_here(p, ranks) * p.width};
}

struct Named {
  std::string_view op, name;
};
Crossing from_local(const HeadExchange& e, const Part& p, const Tensor& x, const Named& what) {
  check_tensor(what.op, what.name, x, local_shape(e, p), x.dtype());
  return {p, x, Tensor(x.device(), whole_shape(e, p), x.dtype())};
}
Crossing from_whole(const HeadExchange& e, const Part& p, const Tensor& x, const Named& what) {
  check_tensor(what.op, what.name, x, whole_shape(e, p), x.dtype());
  return {p, Tensor(x.device(), local_shape(e, p), x.dtype()), x};
}

void check_heads(const AttentionShape& s, int64_t ranks) {
  const bool keys = s.kv_heads % ranks == 0 || ranks % s.kv_heads == 0;
  if (s.q_heads % ranks == 0 && keys) return;
  fail_usage(cat("all-to-all attention over ", ranks, " context ranks needs query heads that ",
                 ranks, " divides and key heads that it divides or that divide it, but there are ",
                 s.q_heads, " and ", s.kv_heads,
                 "; choose another number of ranks, or the ring, which takes any"));
}

}  // namespace

Tensor AllToAllAttention::whole_first_key(Tape& tape, const AttentionShape& shape,
                                          const Tensor& first_key) {
  // The same for all layers of a micro-batch; first_key_ keeps the block, so its address is its own
  // name.
  if (first_key_ && first_key.block() == first_key_.block()) return whole_first_key_;
  check_tensor("all_to_all_attention", "first_key", first_key, {shape.batch, shape.length},
               Dtype::i32);
  Stream& stream = tape.stream();
  const int ranks = ranks_->size();
  const ContextShare share = context_share(shape.length * ranks, ranks_->rank(), ranks);
  const Tensor all(stream.device(), {ranks, shape.batch, shape.length}, Dtype::i32,
                   MemoryKind::communication);
  const Tensor whole(stream.device(), {shape.batch, share.row_length()}, Dtype::i32,
                     MemoryKind::data);
  const std::vector<int64_t> counts(static_cast<size_t>(ranks), first_key.elements());
  ranks_->all_gather({first_key.raw(), first_key.elements(), Dtype::i32}, counts,
                     {all.raw(), all.elements(), Dtype::i32}, stream);
  stream.run([all, whole, first_key, share] {
    const int32_t* from = all.data<int32_t>();
    ContextShare s = share;
    for (s.rank = 0; s.rank < s.ranks; ++s.rank) {
      for (int64_t b = 0; b < whole.rows(); ++b) {
        int32_t* const row = whole.data<int32_t>() + b * s.row_length();
        for (int64_t i = 0; i < s.tokens(); ++i) row[s.column(i)] = *from++;
      }
    }
  });
  first_key_ = first_key;
  whole_first_key_ = whole;
  return whole;
}

Value AllToAllAttention::run(Tape& tape, const AttentionShape& shape, const Value& q,
                             const Value& k, const Value& v, const Tensor& first_key) {
  const int64_t ranks = ranks_->size();
  check_heads(shape, ranks);
  const int64_t copies = std::max<int64_t>(1, ranks / shape.kv_heads);
  const HeadExchange common{.ranks = ranks_, .batch = shape.batch, .length = shape.length};
  const Tensor whole = whole_first_key(tape, shape, first_key);
  const auto [all_q, all_k, all_v] = apply<HeadsForTokens>(
      tape,
      {common,
       {.heads = shape.q_heads, .width = shape.head_dim},
       {.heads = shape.kv_heads, .width = shape.head_dim, .copies = copies},
       {.heads = shape.kv_heads, .width = shape.v_head_dim, .copies = copies}},
      {q, k, v});
  AttentionShape here = shape;
  here.length = shape.length * ranks;
  here.q_heads = shape.q_heads / ranks;
  here.kv_heads = shape.kv_heads * copies / ranks;
  const Value o = core_->run(tape, here, all_q, all_k, all_v, whole);
  return apply<TokensForHeads>(tape, {common, {.heads = shape.q_heads, .width = shape.v_head_dim}},
                               {o});
}

Tensors<3> HeadsForTokens::forward(Stream& stream, const Attributes& a, const Tensors<3>& x,
                                   Saved&) {
  const std::vector<Crossing> list{from_local(a, a.q, x[0], {name, "q"}),
                                   from_local(a, a.k, x[1], {name, "k"}),
                                   from_local(a, a.v, x[2], {name, "v"})};
  Exchange(stream, a, list).to_whole();
  return {list[0].whole, list[1].whole, list[2].whole};
}

Tensors<3> HeadsForTokens::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                      const Tensors<3>& dy) {
  if (!dy[0] || !dy[1] || !dy[2]) return {};
  const std::vector<Crossing> list{from_whole(a, a.q, dy[0], {name, "dq"}),
                                   from_whole(a, a.k, dy[1], {name, "dk"}),
                                   from_whole(a, a.v, dy[2], {name, "dv"})};
  Exchange(stream, a, list).to_local();
  return {list[0].local, list[1].local, list[2].local};
}

Tensors<1> TokensForHeads::forward(Stream& stream, const Attributes& a, const Tensors<1>& x,
                                   Saved&) {
  const Crossing o = from_whole(a, a.o, x[0], {name, "o"});
  Exchange(stream, a, {o}).to_local();
  return {o.local};
}

Tensors<1> TokensForHeads::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                      const Tensors<1>& dy) {
  if (!dy[0]) return {};
  const Crossing o = from_local(a, a.o, dy[0], {name, "dy"});
  Exchange(stream, a, {o}).to_whole();
  return {o.whole};
}

}  // namespace shoestring
