#pragma once
// What the routers of a step's sparse layers did, over all micro-batches and ranks: the figures of
// the metrics, the counts of the global-batch loss, and the step of the selection bias
// (DeepSeek-V3 report, section 2.1.2, auxiliary-loss-free load balancing).

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/layers/moe.h"
#include "launcher/rank_state.h"
#include "parallel/ordered_sums.h"

namespace shoestring {

class StepRouting {
 public:
  explicit StepRouting(RankState& rank);

  bool any() const { return !blocks_.empty(); }  // the model has sparse layers
  // Forgets the step before; every rank calls.
  void begin();
  // Behind the forward pass of a stage: takes over what the tape was told of micro-batch `micro` of
  // the step, which is `share` of its loss. Every rank calls for every slot, with a null tape where
  // it has no micro-batch, because the global-batch loss counts the same slot of all ranks. That
  // loss reads rank.loads.
  struct MicroBatchShare {
    int64_t micro = 0;
    double share = 0;
  };
  void keep(const Tape* tape, const MicroBatchShare& of);

  struct Figures {
    // "moe/max_vio/layers.1" and so on (docs/moe.md); "moe/load/layers.1/7" when asked for.
    std::vector<std::pair<std::string, double>> named;
    double max_vio = 0;  // of the worst layer
    double dropped = 0;  // choices beyond the capacity, of all layers
  };
  // After the last slot; every rank calls and gets the figures of all of them.
  Figures finish(bool loads_of_experts);
  // After finish(), of a step that is not skipped: b_i += speed sign(mean count - count_i), the
  // same on every rank; minus the mean of that when it is to stay centred.
  void move_biases(double speed);

 private:
  bool with_loads() const { return any() && balance_.global_batch > 0; }
  // {entropy, tokens, balance losses, dropped} of a layer in one micro-batch.
  void add_layer(size_t layer, const Tape& tape, const MicroBatchShare& of);
  void share_loads(const Tape* tape);
  void gather_ranges();
  double balance_of(size_t layer, const RouteFigures& figures) const;
  void add_figures(size_t layer, const std::vector<double>& sums, Figures& figures) const;

  RankState& rank_;
  BalanceConfig balance_;
  int64_t experts_ = 0;
  std::vector<std::string> blocks_;  // "layers.3", of the whole model
  std::vector<Tensor> biases_;       // f32 [E] each; empty where the block is on other ranks
  std::vector<double> counts_;       // [blocks, E]; of all ranks after finish()
  MicroBatchRows own_;               // four figures a block of each of this rank's micro-batches
  std::vector<float> ranges_;        // of the biases; of all blocks after finish()
};

}  // namespace shoestring
