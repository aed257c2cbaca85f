#pragma once
// Data parallelism over the flat gradient store: bucketed reduction that overlaps the backward
// pass, sharded optimiser state (ZeRO stage 1) and exact mode.
//
// Micro-batch g of a step runs on rank g % n in slot g / n. Each rank goes through all slots:
//
//   for (slot = 0; slot < dp.slots(count); ++slot) {
//     dp.begin_slot(gradients, slot, count);
//     if (dp.zero_before(slot)) zero the gradient store;
//     if (dp.has_micro_batch(slot, count)) forward and backward, with dp.gradient_ready(param)
//       as soon as a parameter's gradient has all of this micro-batch's terms;
//     dp.end_slot();
//   }
//   dp.finish();   // the owned ranges of `gradients` hold the sum over all micro-batches
//   optimiser on dp.owned_ranges();
//   dp.gather_parameters(...);
//
// Plain mode: each rank sums its micro-batches in the store, ranks are summed in rank order, once.
// Exact mode: the result is ((0 + p0) + p1) + ... over the global index of micro-batches, each p
// being one micro-batch's own gradient, so any number of ranks gives the same bits. It costs a
// reduction a slot instead of one a step, and 4 bytes per owned element.
// Gradients are sums: the loss is divided by the step's count of tokens, nothing by n.

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "parallel/communicator.h"
#include "parallel/shard_layout.h"

namespace shoestring {

struct DataParallelConfig {
  int64_t bucket_bytes = 16 << 20;  // gradients that are reduced together while backward goes on
  int64_t zero_stage = 0;           // 1: each rank keeps its share of the optimiser's state
  bool exact = false;               // any number of ranks gives the same bits
};

// Since the last reset.
struct DataParallelStats {
  int64_t bytes_sent = 0;        // by this rank, parameters included
  double reduction_seconds = 0;  // that reductions took on their stream
  double exposed_seconds = 0;    // of it, what the caller waited for
  int64_t reductions = 0;        // buckets reduced
};

class DataParallel {
 public:
  // `stream`: a worker for overlap; an immediate one reduces inside gradient_ready. Both outlive
  // this. Nobody else uses the communicator while a step is in flight.
  DataParallel(Communicator& communicator, Stream& stream, const DataParallelConfig& config,
               int64_t elements, std::vector<ParamExtent> params);
  ~DataParallel();  // when an exception is under way, peers are told
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  int64_t slots(int64_t micro_batches) const;
  bool has_micro_batch(int64_t slot, int64_t micro_batches) const;
  bool zero_before(int64_t slot) const { return config_.exact || slot == 0; }

  // `gradients`: the whole store, the same memory in all slots of a step. Slots come in order.
  void begin_slot(std::span<float> gradients, int64_t slot, int64_t micro_batches);
  // Once a parameter and slot, in any order. Later work of the reduction's stream starts after
  // `computed`. Parameters that were not announced count as ready in end_slot.
  void gradient_ready(int param, const Event& computed = {});
  void end_slot();
  void finish();

  // Ascending. Stage 0: everything. Outside of them, finish() leaves gradients undefined.
  std::vector<FlatRange> owned_ranges() const;
  // How the ranks would share the store out, in both stages; for work on shares such as the norm.
  const ShardLayout& layout() const { return layout_; }
  // Stage 1: every rank gets the owners' values of a flat store (compute copies or masters; `store`
  // has one element a parameter element). From the begin of the store, as forward needs it. The
  // result is there when the event has happened. Stage 0: nothing to do.
  Event gather_parameters(Buffer store);

  // After finish(), or after the event of gather_parameters.
  const DataParallelStats& stats() const { return stats_; }
  void reset_stats() { stats_ = {}; }

 private:
  using Clock = std::chrono::steady_clock;
  using Bucket = ShardLayout::Bucket;

  bool reduces_in_slot() const;
  void launch_ready();
  void launch(size_t index);
  void reduce_plain(const Bucket& bucket);
  void accumulate_exact(size_t index);
  void write_back_exact(size_t index);
  void wait_exposed();
  template <class F>
  void timed(F&& enqueue);
  Buffer gradient_buffer(FlatRange range) const;
  std::span<float> accumulated(size_t index) const;

  Communicator& communicator_;
  Stream& stream_;
  DataParallelConfig config_;
  int64_t elements_;
  ShardLayout layout_;
  std::vector<std::vector<size_t>> buckets_of_param_;
  std::vector<int> params_in_bucket_;
  int exceptions_ = std::uncaught_exceptions();

  // Of the slot in progress.
  std::span<float> gradients_;
  int64_t slot_ = -1, micro_batches_ = 0;
  bool in_slot_ = false;
  std::vector<int> missing_;  // parameters, by bucket
  std::vector<bool> announced_;
  size_t next_ = 0;  // bucket to launch; the order is the same on all ranks

  // Exact mode: the sums of the owned pieces, bucket after bucket, and what peers sent.
  Tensor accumulators_, staging_;
  std::vector<int64_t> accumulator_begin_;

  Clock::time_point reduction_begin_;  // touched by the stream only
  DataParallelStats stats_;
};

}  // namespace shoestring
