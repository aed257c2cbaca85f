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

namespace shoestring {

class StepRouting {
 public:
  explicit StepRouting(RankState& rank);

  bool any() const { return !blocks_.empty(); }  // the model has sparse layers
  // Forgets the step before; every rank calls.
  void begin();
  // For the layers' context: null without a global-batch loss.
  ExpertLoads* loads() { return with_loads() ? &loads_ : nullptr; }
  // Between forward and backward of a slot: takes over what the tape was told of a micro-batch that
  // is `share` of the step's loss. Every rank calls for every slot, with a null tape where it has
  // no micro-batch, because the global-batch loss counts the same slot of all ranks.
  void keep(const Tape* tape, double share);

  struct Figures {
    // "moe/max_vio/layers.1" and so on (docs/moe.md); "moe/load/layers.1/7" when asked for.
    std::vector<std::pair<std::string, double>> named;
    double max_vio = 0;  // of the worst layer
    double dropped = 0;  // choices beyond the capacity, of all layers
  };
  // After the last slot; every rank calls and gets the figures of all of them.
  Figures finish(int64_t micro_batches, bool loads_of_experts);
  // After finish(), of a step that is not skipped: b_i += speed sign(mean count - count_i), the
  // same on every rank; minus the mean of that when it is to stay centred.
  void move_biases(double speed);

 private:
  bool with_loads() const { return any() && balance_.global_batch > 0; }
  // {entropy, tokens, balance losses, dropped} of a layer in one micro-batch.
  void add_layer(size_t layer, const Tape& tape, double share);
  void share_loads(const Tape* tape);
  double balance_of(size_t layer, const RouteFigures& figures) const;
  void add_figures(size_t layer, const std::vector<double>& sums, Figures& figures) const;

  RankState& rank_;
  BalanceConfig balance_;
  int64_t experts_ = 0;
  std::vector<std::string> blocks_;  // "layers.3"
  std::vector<Tensor> biases_;       // f32 [E] each
  std::vector<double> counts_;       // [blocks, E]; of all ranks after finish()
  std::vector<double> own_;          // four figures a block of each of this rank's micro-batches
  ExpertLoads loads_;
  std::unique_ptr<Communicator> apart_;  // its calls do not wait for those of gradients
};

}  // namespace shoestring
