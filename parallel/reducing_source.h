#pragma once
// The ParamSource (core/seams.h) of data parallelism, of one micro-batch: gradients go on their way
// as soon as the tape has finished them; weights of ZeRO stage 3 are gathered when the tape asks
// for them and let go where its segments end.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "core/seams.h"
#include "parallel/data_parallel.h"
#include "parallel/gathered_weights.h"

namespace shoestring {

// Parameters that are reduced over the same ranks. A rank has several: dense ones and experts, or
// several stages of a pipeline.
struct ParamGroup {
  DataParallel* gradients = nullptr;   // null: evaluation
  GatheredWeights* weights = nullptr;  // null: the store has them
  bool announce = true;                // else end_slot() says that gradients are complete
  // Where this micro-batch's gradient is added up, if not where `gradients` says.
  std::function<Tensor(const Param&)> gradient = nullptr;
  // In front of every announcement: sums over tensor ranks.
  std::function<void(const Param&, const Tensor& gradient, int64_t slot)> complete = nullptr;
};

class ReducingSource : public StoreSource {
 public:
  // Of the slot that began last. `compute`: the stream of the tape. All outlive this.
  ReducingSource(ParamStore& store, DataParallel& data_parallel, Stream& compute)
      : ReducingSource(store, {{.gradients = &data_parallel}}, compute, -1) {}
  // `slot` -1: the one that began last, in every group.
  ReducingSource(ParamStore& store, const std::vector<ParamGroup>& groups, Stream& compute,
                 int64_t slot = -1);

  void acquire(int segment, Phase phase) override;
  void release(int segment, Phase phase) override;
  Tensor weight(const Param& p) override;
  Tensor gradient(const Param& p) override;
  void gradient_ready(const Param& p) override;

 private:
  struct Group {
    ParamGroup plan;
    std::unique_ptr<WeightPass> pass;  // where weights are gathered
  };
  Group& group_of(const Param& p);
  int64_t slot_of(const Group& group) const;

  Stream* compute_;
  std::vector<Group> groups_;
  int64_t slot_;
  bool backward_ = false;
  std::vector<int> open_;                                  // segments, the innermost last
  std::map<int, std::set<std::pair<Group*, int>>> units_;  // that a segment has used
};

}  // namespace shoestring
