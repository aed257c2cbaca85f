#pragma once
// Tensor and sequence parallelism (Shoeybi et al. 2019, arXiv 1909.08053; Korthikanti et al. 2022,
// arXiv 2205.05198): which part of each parameter a rank of a group of t holds, whose gradients are
// to be summed over the group, and the boundaries where rows are gathered and sums scattered.
//
//   parameter                              cut                     gradient
//   attention.qkv.{weight,bias}            whole heads of q, k, v  complete; k and v of a head that
//                                                                  several ranks hold: their sum
//   attention.{q_up,q,kv_up}.weight        whole heads, rows       complete
//   attention.output.weight                columns                 complete
//   mlp, shared: gate_up.weight            rows of gate, of up     complete
//   mlp, shared: down.weight               columns                 complete
//   embedding.weight, head.weight          rows of the vocabulary  complete
//   experts                                not cut                 sum (each rank its own tokens)
//   norms, router, q_down, kv_down, projections of prediction modules: not cut; sum
//
// Rows of a micro-batch, T = B S, are shared out in consecutive equal parts.

#include <memory>
#include <vector>

#include "core/model/boundaries.h"
#include "core/model/config.h"
#include "core/param.h"
#include "parallel/communicator.h"
#include "parallel/row_transfers.h"

namespace shoestring {

// What is wrong with cutting the model into t parts; empty: nothing.
std::vector<std::string> tensor_parallel_complaints(const ModelConfig& model, int t);

// The part that rank r of t holds.
std::vector<ParamInfo> shard_parameters(const ModelConfig& model, std::vector<ParamInfo> whole,
                                        int r, int t);

// What of a parameter's gradient the group's ranks still have to add up.
enum class GradientSum : uint8_t {
  none,         // complete, and nobody else's
  group,        // over all ranks of the group, which hold the same
  shared_heads  // its rows of k and v, over the ranks that hold the same heads
};
GradientSum gradient_sum_of(const ModelConfig& model, const ParamInfo& info, int t);

class TensorParallel {
 public:
  // All ranks of the group construct at once; it outlives this. Blocks. `runs`: in how many the
  // rows beside products travel while others are multiplied (parallel/row_transfers.h); 0: they
  // travel at once, and nothing else is done meanwhile.
  TensorParallel(const ModelConfig& model, Communicator& group, Device& device, int runs);
  ~TensorParallel();

  Communicator& group() { return group_; }
  const Boundaries& boundaries() const { return boundaries_; }
  std::vector<ParamInfo> shard(std::vector<ParamInfo> whole) const;
  // Adds up what gradient_sum_of says of a parameter, in place, in rank order.
  void sum_gradient(const Param& p, const Tensor& gradient, Stream& stream);

 private:
  class Vocabulary;
  ModelConfig model_;
  Communicator& group_;
  std::unique_ptr<Communicator> sharers_;    // ranks with the same heads of k and v; null: alone
  std::unique_ptr<RowTransfers> transfers_;  // null: rows travel at once
  std::vector<std::unique_ptr<Boundary>> edges_;
  std::unique_ptr<Vocabulary> vocabulary_;
  Boundaries boundaries_;
};

}  // namespace shoestring
