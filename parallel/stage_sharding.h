#pragma once
// Data parallelism of a pipeline rank: the stages' parameters in groups
// (parallel/reducing_source.h), each with a DataParallel of its own, and what the instructions G, R
// and S of a program do to them. Micro-batch i of the schedule is slot i of its stage; where two
// copies of a stage run opposite halves of them (DualPipe), each counts its own.

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "parallel/instruction.h"
#include "parallel/reducing_source.h"

namespace shoestring {

// Parameters of one stage, or of several that share them (a tied embedding). Their DataParallel
// lets slots overlap. `sharers`: how many stages of this rank use them.
struct StageGroup {
  ParamGroup params;
  FlatRange range;  // of the store
  std::vector<int> stages;
};

class StageSharding {
 public:
  // All outlive this.
  StageSharding(ParamStore& store, Stream& compute, const Placement& where, int rank,
                std::vector<StageGroup> groups);

  // One step: `micro_batches` of all data ranks together. Store gradients that the caller holds are
  // zero before.
  void begin(int64_t micro_batches);
  // Where one micro-batch of a stage finds parameters; begins its slot.
  std::unique_ptr<ParamSource> source(int stage, int micro);
  void gather(int stage, int micro);
  void release(int stage, int micro);
  void reduce(int stage, int micro);
  void finish();

 private:
  struct Group {
    StageGroup plan;
    int64_t begun = 0;                // slots
    std::map<int64_t, size_t> ended;  // stages that have ended a slot
    int gathered = 0;                 // stages that want the weights
  };
  bool uses(const Group& group, int stage) const;
  int64_t slot_of(int stage, int micro) const;
  void end_slot(Group& group, int64_t slot);

  ParamStore& store_;
  Stream& compute_;
  const Placement& where_;
  int rank_;
  std::vector<Group> groups_;
  int64_t micro_batches_ = 0;
};

}  // namespace shoestring
