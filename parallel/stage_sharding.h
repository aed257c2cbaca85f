#pragma once
// Data parallelism of a pipeline rank: the stages' parameters in groups
// (parallel/reducing_source.h), each with a DataParallel of its own, and what the instructions G, R
// and S of a program do to them. Micro-batch i of the schedule is slot i of its stage; where two
// copies of a stage run opposite halves of them (DualPipe), slot j is micro-batch j of either half
// and the copies are data ranks of one another.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "parallel/instruction.h"
#include "parallel/reducing_source.h"

namespace shoestring {

// How the parts of a gradient come together that several stages add to (a tied embedding, of the
// first stage and the last): within each micro-batch or, in plain sums, within the step.
enum class SharedBy : uint8_t {
  nobody,
  here,     // the stages are on this rank
  ends,     // each of two ranks has one of the stages: both get the sum
  mirrored  // both ranks have both stages, each for the half of the micro-batches that the other
            // has the other stage for: each gets the sums of the half that its first stage sees
};

// Parameters of one stage, or of several; a shared one is a group of its own. A DataParallel of
// several stages lets slots overlap.
struct StageGroup {
  ParamGroup params;
  FlatRange range;          // of the store
  std::vector<int> stages;  // of this rank, that use them, ascending
  SharedBy shared = SharedBy::nobody;
  // Of a shared parameter: the two ranks, ascending in the pipeline (ends, mirrored), and the
  // stream of `params.gradients`, where their sums are made.
  Communicator* sharers = nullptr;
  Stream* stream = nullptr;
  // In front of the end of a slot: what has to be done to gradients that no tape announced.
  std::function<void(int64_t slot)> slot_ends = nullptr;
};

class StageSharding {
 public:
  // `store` and `compute` outlive this.
  StageSharding(ParamStore& store, Stream& compute, const Placement& where, int rank,
                std::vector<StageGroup> groups);

  // One step: `micro_batches` of all data ranks together, `micros` in each run of a schedule. Store
  // gradients that the caller holds are zero before.
  void begin(int64_t micro_batches, int micros);
  // Where a step is several runs of a schedule: its micro-batch 0 is this slot.
  void begin_round(int64_t slot) { first_slot_ = slot; }
  // A slot in which this rank has no micro-batch but others have.
  void idle(int64_t slot);
  // Where one micro-batch of a stage finds parameters; begins its slot.
  std::unique_ptr<ParamSource> source(int stage, int micro);
  // The same for a forward pass alone, outside of a step.
  std::unique_ptr<ParamSource> source_of_evaluation(int stage);
  // The same on a rank that has the stage's weights too, while another makes the pass.
  void idle_in_evaluation(int stage);
  bool gathers_weights() const;
  void gather(int stage, int micro);
  void release(int stage, int micro);
  void reduce(int stage, int micro);
  void finish();

 private:
  struct Group {
    StageGroup plan;
    int64_t begun = 0;                       // slots
    std::map<int64_t, std::set<int>> ended;  // stages that have ended a slot
    const Param* param = nullptr;            // that is shared
    std::map<int64_t, Tensor> parts;         // by slot: of both stages, where they add apart
    int gathered = 0;                        // stages that want the weights
  };
  bool uses(const Group& group, int stage) const;
  int64_t slot_of(int stage, int micro) const;
  void begin_slots(Group& group, int64_t last);
  bool sums_apart(const Group& group) const;
  Tensor part(Group& group, int64_t slot, int stage);
  void add_parts(Group& group, int64_t slot);
  void add_end(Group& group, int64_t slot);
  void end_slot(Group& group, int64_t slot, int stage);
  void close(Group& group, int64_t slot);

  ParamStore& store_;
  Stream& compute_;
  Placement where_;
  int rank_;
  std::vector<Group> groups_;
  int64_t micro_batches_ = 0, first_slot_ = 0;
};

}  // namespace shoestring
