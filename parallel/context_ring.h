#pragma once
// Attention over rows whose tokens are shared out among ranks (context_cut.h): queries stay, keys
// and values travel round the ring, from each rank to the next, while the block that came before
// them is computed on (Liu et al. 2023, "Ring attention with blockwise transformers"; the balanced
// order of Brandon et al. 2023, "Striped attention", by chunks). Works for any number of ranks.
//
//   forward   step j of c: K and V of rank r - j; its block is merged into o by log-sum-exp, in f32
//   backward  every block with the final o and log-sum-exp; dK and dV travel behind their block,
//             one sum after the other in f32, and come home with the c-th hop
//
// Documents (first_key), windows, grouped heads and values of another width are as in
// core/ops/attention.h: each rank derives from the columns which of a source's keys a query sees,
// and blocks of scores that nobody sees cost nothing. Sums have one order, so results do not depend
// on timing; they differ from those of one rank in the rounding of f32 sums.
//
// A rank sends, for B rows of S tokens and U = B S n_kv (hd + hv) elements of w bytes:
//   forward   w U (c-1)/c          backward   w U (c-1)/c + 4 U  (8 U for f64), nothing for c = 1
//
// Device memory of a rank with T = B S / c tokens, beyond q, k, v, o and the log-sum-exp (4 T n_q
// bytes), which stay for the backward pass, in bytes:
//   communication  forward   2 w T n_kv (hd + hv), half of it for c = 2
//                  backward  the same + 3 * 4 T n_kv (hd + hv)
//   workspace      forward   4 T n_q hv for bf16 + 8 T + kernels
//                  backward  4 T n_q hd for bf16 + 8 T + kernels
//   kernels        a thread's packed keys, and the blocks of its heads: at most
//                  4 (T/B + 64) (4 hd' + 2 hv') + 4 (n_q/n_kv + 3) 128 (4 hd' + 4 hv' + 128),
//                  with hd', hv' rounded up to a multiple of 16
// No term holds S x S or S of other ranks: at a fixed S it falls as 1/c.

#include <string_view>

#include "core/op.h"
#include "core/seams.h"
#include "parallel/communicator.h"

namespace shoestring {

// q, k, v [B*L, heads*dim] of this rank's L tokens a row; first_key i32 [B, L], columns of whole
// rows. All ranks of the ring call run(), and later its gradient, in the same order.
class RingAttention : public AttentionCore {
 public:
  // `ring` is used on a stream of this object's and must serve nothing else meanwhile (split() one
  // off). It outlives this, and this the tapes that it ran on.
  RingAttention(Communicator& ring, Device& device);
  Value run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
            const Tensor& first_key) override;

 private:
  Communicator& ring_;
  Stream transfers_;
  AbortOnUnwind abort_;
};

// The op that it records.
struct RingAttentionOp {
  static constexpr std::string_view name = "ring_attention";
  static constexpr int num_inputs = 4, num_outputs = 1;
  struct Attributes {
    AttentionShape shape;  // length: L, of this rank
    Communicator* ring = nullptr;
    Stream* transfers = nullptr;
  };
  struct Saved {
    Tensor q, k, v, first_key, o;
    Tensor log_sum_exp;  // [B, n_q, L] f32 (f64 for f64)
    template <class F>
    void each(F&& f) {
      f(q), f(k), f(v), f(first_key), f(o), f(log_sum_exp);
    }
  };
  static Tensors<1> forward(Stream& stream, const Attributes& a, const Tensors<4>& x, Saved& saved);
  static Tensors<4> grad_input(Stream& stream, const Attributes& a, const Saved& saved,
                               const Tensors<1>& dy);
};
static_assert(PlainOp<RingAttentionOp>);

}  // namespace shoestring
