#pragma once
// Exponential moving average of the weights, for evaluation (Polyak averaging with decay).

#include <cstdint>
#include <span>
#include <vector>

#include "core/param.h"
#include "optim/shard.h"
#include "optim/state.h"

namespace shoestring {

class WeightAverage {
 public:
  // Starts as a copy of the masters; f32, in the ledger as MemoryKind::moments. `params` must
  // outlive this; `owned` as for Optimizer. Fails on a decay outside (0, 1).
  WeightAverage(Device& device, std::span<const Param> params, std::span<const FlatRange> owned,
                FlatSpan<const float> master, double decay);

  // average += (1 - decay) * (master - average), after an update.
  void update(FlatSpan<const float> master);

  // Exchanges masters and average, bit for bit; a second call restores both. The caller refreshes
  // compute copies and raises the store's version.
  void swap(FlatSpan<float> master);
  bool swapped() const { return swapped_; }

  // Pieces of kind "ema", sharing memory. Must not be taken while swapped.
  std::vector<StateTensor> state() const;

 private:
  Device* device_;
  std::span<const Param> params_;
  std::vector<Slice> slices_;
  std::vector<Tensor> averages_;
  float rest_;
  bool swapped_ = false;
};

}  // namespace shoestring
