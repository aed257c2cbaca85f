#pragma once
// The ParamSource (core/seams.h) of data parallelism: gradients go on their way as soon as the tape
// has finished them. Use it for the micro-batches between begin_slot and end_slot.

#include <functional>

#include "core/seams.h"
#include "parallel/data_parallel.h"

namespace shoestring {

class ReducingSource : public StoreSource {
 public:
  // `compute`: the stream of the tape. All outlive this.
  ReducingSource(ParamStore& store, DataParallel& data_parallel, Stream& compute)
      : StoreSource(store), data_parallel_(&data_parallel), compute_(&compute) {}
  void gradient_ready(const Param& p) override;

 private:
  DataParallel* data_parallel_;
  Stream* compute_;
};

// The store's parameters as DataParallel and ShardLayout want them. `whole` tells which may not be
// cut between ranks; by default all may.
std::vector<ParamExtent> extents_of(const ParamStore& store,
                                    const std::function<bool(const Param&)>& whole = nullptr);

}  // namespace shoestring
