#pragma once
// The update of the parameters that one rank owns: AdamW element by element, Muon matrix by matrix
// (optim/muon.h). Works on ranges of the flat numbering, knows nothing of other ranks.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/param.h"
#include "optim/adamw.h"
#include "optim/config.h"
#include "optim/muon.h"
#include "optim/shard.h"
#include "optim/state.h"

namespace shoestring {

struct UpdateInput {
  int64_t step = 1;           // counts updates from 1; skipped steps do not count; checkpointed
  double lr = 0;              // learning_rate() of this step
  double gradient_scale = 1;  // 1 / tokens, clip coefficient and the like, folded into one factor
  FlatSpan<float> master = {};
  FlatSpan<const float> gradients = {};
  FlatSpan<BFloat16> copy = {};  // compute copies; empty when the masters are the weights
};

class Optimizer {
 public:
  // `params` must outlive this. `owned`: ascending, disjoint ranges of the flat numbering; with
  // Muon, each of its parameters must lie wholly inside one range or outside all. State starts at
  // zero and is in the ledger as MemoryKind::moments.
  Optimizer(Device& device, std::span<const Param> params, const OptimConfig& config,
            std::span<const FlatRange> owned, uint64_t seed);

  // Weight decay is lr * weight_decay for parameters that decay, whatever their lr_multiplier (as
  // muP's reference keeps it constant in width). Masters, copies and state of the owned elements
  // change; nothing else does.
  void update(const UpdateInput& input);

  // Writes the compute copies of the owned elements again, exactly as update() of the same step
  // did: after a checkpoint with only masters was loaded.
  void refresh_copies(const UpdateInput& input) const;

  // Pieces for checkpoints, in the order of the parameters; moments share memory with this.
  std::vector<StateTensor> state() const;

 private:
  struct Adam {
    Slice slice;
    Tensor m, v;
  };
  // Part of a slice: one thread's piece of work.
  struct Chunk {
    size_t adam;
    int64_t begin, end;  // within the slice
    int64_t index;       // of the first element, in the whole parameter
  };
  int64_t index_of(const MuonMatrix& matrix) const;
  AdamwRun run_of(const Chunk& chunk, const UpdateInput& input) const;
  AdamwCoefficients<float> coefficients(const Param& param, const UpdateInput& input) const;
  const Param& param_of(const Slice& slice) const;

  Device* device_;
  std::span<const Param> params_;
  OptimConfig config_;
  uint64_t seed_;
  std::vector<Adam> adams_;
  std::vector<Chunk> chunks_;
  std::vector<MuonMatrix> matrices_;
  std::vector<Tensor> momenta_;  // of matrices_
};

}  // namespace shoestring
