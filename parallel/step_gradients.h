#pragma once
// The gradients of one rank under a mesh, from the tape to the optimiser: which ranks' parts of
// each are summed, when, and over which group (docs/mesh.md, "Who sums what"). Every sum is plain:
// seeds are divided by the labels of the whole step.
//
//   gradients.begin_step(micro_batches);
//   for (slot = 0; slot < gradients.slots(); ++slot) {
//     gradients.begin_slot(slot);
//     if (gradients.has_micro_batch(slot)) forward and backward, with this as the tape's source
//     gradients.end_slot();
//   }
//   gradients.finish();
//   optimiser on owned_ranges(); gather_parameters(...)
//
// Without pipelines a slot is a micro-batch of this rank; a pipeline has one slot, in which all its
// micro-batches run. Sums over tensor ranks come first, as soon as a gradient is complete, then
// those over replicas (parallel/data_parallel.h), dense parameters and routed experts apart.

#include <memory>
#include <vector>

#include "core/seams.h"
#include "parallel/data_parallel.h"
#include "parallel/model_part.h"

namespace shoestring {

// A run of a parameter's elements.
struct ParamRange {
  int param = 0;  // index in the store
  int64_t begin = 0, end = 0;
};

class StepGradients : public StoreSource {
 public:
  struct Config {
    DataParallelConfig sharing = {};
    std::function<bool(const Param&)> whole = nullptr;  // parameters that no border may cut
  };
  // `store` was built from part.parameters(). All outlive this. `compute`: the tapes' stream.
  StepGradients(ModelPart& part, ParamStore& store, Stream& compute, const Config& config);

  void begin_step(int64_t micro_batches);  // of all data ranks
  int64_t slots() const { return slots_; }
  bool has_micro_batch(int64_t slot) const;
  void begin_slot(int64_t slot);
  void end_slot();
  void finish();

  // ParamSource: every tape of the slot announces each of its parameters once.
  void gradient_ready(const Param& p) override;

  // Of the flat numbering, ascending: what this rank updates.
  std::vector<FlatRange> owned_ranges() const;
  // The same by group of parameters, with this rank's number among those that hold the same.
  struct Owned {
    std::vector<FlatRange> ranges = {};
    int rank = 0;
  };
  std::vector<Owned> owned_by_group() const;
  // What this rank's share of a sum over all parameters is, each counted once in the world.
  std::vector<ParamRange> counted() const;
  // Parameters that others updated: parallel/data_parallel.h. Waits.
  void gather_parameters(Buffer store);

  DataParallelStats stats() const;
  void reset_stats();

 private:
  struct Group {
    size_t first = 0, last = 0;  // parameters
    int64_t begin = 0, end = 0;  // elements
    std::unique_ptr<Stream> stream = {};
    std::unique_ptr<DataParallel> sharing = {};  // null: no such parameters
    int64_t micro_batches = 0;                   // as `sharing` counts them
  };
  Group make_group(size_t first, size_t last, Communicator& ranks, const Config& config);
  Group& group_of(const Param& p) { return groups_[p.index < split_ ? 0 : 1]; }
  template <class F>
  void each_group(F&& f) const;
  Communicator& ranks_of(const Group& group) const;
  void count_uses();
  bool complete_in_slot() const { return exact_ || slot_ + 1 == slots_; }
  void sum_over_tensor_ranks(const Param& p);
  void sum_embedding();
  void announce(const Param& p);

  ModelPart& part_;
  ParamStore& store_;
  Stream& compute_;
  bool exact_;
  int split_;  // index of the first parameter of routed experts
  std::array<Group, 2> groups_;
  std::vector<int64_t> uses_;  // tapes of a slot that use each parameter, per micro-batch
  std::vector<int64_t> left_;  // of the slot in progress
  std::vector<bool> summed_;   // over tensor ranks, in this step (exact mode: slot)
  int64_t micro_batches_ = 0, slots_ = 0, slot_ = -1;
};

}  // namespace shoestring
