#pragma once
// Attention over rows whose tokens are shared out among ranks (context_cut.h), by exchanging heads
// for tokens: each rank gets all tokens of n_q / c heads, runs the local attention on whole rows,
// and gives the outputs back (Jacobs et al. 2023, "DeepSpeed Ulysses"). Documents, windows and
// widths are the local core's business.
//
// c ranks need n_q % c = 0 and n_kv % c = 0 or c % n_kv = 0. With fewer key heads than ranks each
// key head goes to the c / n_kv ranks whose query heads read it (rank r reads floor(r n_kv / c)),
// and the gradients of its copies are summed in f32, in rank order, with one rounding.
//
// A rank sends, for B rows of S tokens and n_kv' = max(n_kv, c), elements of w bytes:
//   w B S (n_q (hd + hv) + n_kv' (hd + hv)) (c-1)/c^2   forward, and the same backward,
// which is 4 B S d (n_q + n_kv') (c-1)/c^2 for bf16 heads of width d; and once a micro-batch
// 4 B S (c-1)/c bytes of first_key.
//
// Device memory of a rank with T = B S / c tokens, in bytes: communication, on the way in either
// direction, at most 2 w T (n_q hd + n_kv' (hd + hv)) or 2 w T n_q hv; then what the local core
// keeps of c T tokens with n_q/c and n_kv'/c heads: w T (n_q (hd + hv) + n_kv' (hd + hv)) + 4 T n_q
// for the backward pass. At a fixed S it falls as 1/c until n_kv < c.

#include <string_view>

#include "core/layers/attention.h"
#include "core/op.h"
#include "core/seams.h"
#include "parallel/communicator.h"

namespace shoestring {

class AllToAllAttention : public AttentionCore {
 public:
  // `ranks` is used on the tapes' streams. Null: the local core. Both outlive this and the tapes.
  explicit AllToAllAttention(Communicator& ranks, AttentionCore* core = nullptr)
      : ranks_(&ranks), core_(core != nullptr ? core : &local_) {}
  // q, k, v [B*L, heads*dim] of this rank's L tokens a row; first_key i32 [B, L], columns of whole
  // rows. All ranks call run(), and later its gradient, in the same order.
  Value run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
            const Tensor& first_key) override;

 private:
  Tensor whole_first_key(Tape& tape, const AttentionShape& shape, const Tensor& first_key);
  Communicator* ranks_;
  LocalAttention local_;
  AttentionCore* core_;
  Tensor first_key_, whole_first_key_;  // of the latest micro-batch
};

// What n tensors that cross together have in common.
struct HeadExchange {
  struct Part {
    int64_t heads = 0, width = 0;  // of the tensor with this rank's tokens
    int64_t copies = 1;            // ranks that a head goes to
  };
  Communicator* ranks = nullptr;
  int64_t batch = 0, length = 0;  // B; L, this rank's tokens a row
};

// q, k, v of this rank's tokens -> of all tokens of a row, in order, and this rank's heads:
// [B*L, n d] -> [B*S, n' d].
struct HeadsForTokens {
  static constexpr std::string_view name = "heads_for_tokens";
  static constexpr int num_inputs = 3, num_outputs = 3;
  struct Attributes : HeadExchange {
    Part q, k, v;
  };
  using Saved = NothingSaved;
  static Tensors<3> forward(Stream& stream, const Attributes& a, const Tensors<3>& x, Saved&);
  static Tensors<3> grad_input(Stream& stream, const Attributes& a, const Saved&,
                               const Tensors<3>& dy);
};
static_assert(PlainOp<HeadsForTokens>);

// The way back, of o: [B*S, n' d] -> [B*L, n d].
struct TokensForHeads {
  static constexpr std::string_view name = "tokens_for_heads";
  static constexpr int num_inputs = 1, num_outputs = 1;
  struct Attributes : HeadExchange {
    Part o;
  };
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream& stream, const Attributes& a, const Tensors<1>& x, Saved&);
  static Tensors<1> grad_input(Stream& stream, const Attributes& a, const Saved&,
                               const Tensors<1>& dy);
};
static_assert(PlainOp<TokensForHeads>);

}  // namespace shoestring
