#pragma once
// Data parallelism over a range of the flat gradient store: bucketed reduction that overlaps the
// backward pass, sharded state and gradients (ZeRO stages 0 to 3; weights of stage 3:
// parallel/gathered_weights.h), two levels of ranks and exact mode. docs/data_parallel.md.
//
// Micro-batch g of a step runs on data rank g % n in slot g / n. Each rank goes through all slots:
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
// Plain mode: each rank sums its micro-batches, ranks are summed in rank order, once; or once a
// slot, which keeps no whole gradients from one slot to the next (GradientLife).
// Exact mode: the result is ((0 + p0) + p1) + ... over the global index of micro-batches, each p
// being one micro-batch's own gradient, so any number of ranks gives the same bits. It costs a
// reduction a slot instead of one a step, and 4 bytes per owned element.
// Gradients are sums: the loss is divided by the step's count of tokens, nothing by n.

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "parallel/communicator.h"
#include "parallel/gradient_reduction.h"
#include "parallel/shard_layout.h"

namespace shoestring {

// How long a rank keeps gradients that are not reduced yet: over the step, with one reduction of
// every bucket, or over a slot, with as many as there are slots. automatic: slot from stage 2 on.
enum class GradientLife : uint8_t { automatic, step, slot };

struct DataParallelConfig {
  int64_t bucket_bytes = 16 << 20;  // gradients that are reduced together while backward goes on
  // 1: each rank keeps its share of the optimiser's state; 2: of the gradients too; 3: of the
  // weights too.
  int64_t zero_stage = 0;
  bool exact = false;  // any number of ranks gives the same bits
  GradientLife gradients = GradientLife::automatic;
  // Pipelines: a slot may begin before the one before it ends; every slot has its own gradients.
  bool slots_overlap = false;
  // Reductions under way whose gradients are held here, before the next gradients wait for one of
  // them; 0: any number, for ranks whose reductions wait for what others do behind ours.
  int64_t in_flight = 2;
};

// Whether gradients are reduced once a slot, not once a step.
bool reduces_each_slot(const DataParallelConfig& config);

// How `ranks` share a range out. `sources`, `units`: as below.
ShardLayout shards_of(const DataParallelConfig& config, FlatRange range,
                      const std::vector<ParamExtent>& params, const std::vector<FlatRange>& units,
                      int64_t sources, int ranks);

// What is reduced over whom. All outlive the DataParallel.
struct DataParallelPlan {
  Communicator& shard;                // ranks that share the range out
  Communicator* replicate = nullptr;  // ranks with equal shares (hierarchical); null: none
  Stream& stream;  // a worker for overlap; an immediate one reduces inside gradient_ready
  DataParallelConfig config = {};
  FlatRange range = {};                  // of the flat numbering
  int first_param = 0;                   // the index of params[0]
  std::vector<ParamExtent> params = {};  // ascending
  std::vector<FlatRange> units = {};     // buckets of stages 2 and 3 (parallel/param_units.h)
  // Where ranks are not data ranks one to one: as many data ranks as micro-batches run at once, and
  // this rank's. Ranks of `shard` and `replicate` must ascend with them. 0: one to one.
  int64_t data_ranks = 0, data_rank = 0;
  // Exact mode: of how many data ranks each rank has the gradients, apart (experts whose rows come
  // from `sources` ranks): rank r has those of data ranks [r sources, (r + 1) sources). Every
  // parameter is a bucket of its own then.
  int64_t sources = 1;
  // Offload, from stage 1 on: sums of gradients lie there, where the optimiser reads them.
  Device* host = nullptr;
  // From stage 2 on: memory for the gradients of owned_ranges(), f32, zeros; empty: of its own.
  Tensor sums = {};
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
  // Nobody else uses the communicators or the stream while a step is in flight: another
  // DataParallel has its own. Only where every rank has a micro-batch in every slot may two share
  // them, for their calls come in the same order on all ranks then.
  explicit DataParallel(const DataParallelPlan& plan);
  // Of a whole store.
  DataParallel(Communicator& communicator, Stream& stream, const DataParallelConfig& config,
               int64_t elements, std::vector<ParamExtent> params);
  ~DataParallel();  // when an exception is under way, peers are told
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  int64_t slots(int64_t micro_batches) const;
  bool has_micro_batch(int64_t slot, int64_t micro_batches) const;
  bool zero_before(int64_t slot) const { return each_slot_ || slot == 0; }

  // Does it hold gradients itself, unit by unit? Then gradient() has them and the caller has no
  // flat store of them, or (below stage 2) one that finish() fills.
  bool holds_gradients() const { return holds_; }
  bool has(int param) const { return param >= first_param_ && param < last_param_; }

  // `gradients`: the range of the store, the same memory in all slots of a step; empty from stage 2
  // on. Slots begin in order.
  void begin_slot(std::span<float> gradients, int64_t slot, int64_t micro_batches);
  int64_t last_slot() const { return slot_; }  // that began; -1 between steps
  // f32 of the parameter's shape, to be added to; zeros at first. Lives until it is reduced. Of
  // several sources [sources, elements or more], each source's gradient in a row of its own.
  Tensor gradient(const Param& p, int64_t slot);
  // Once a parameter and slot, in any order. Later work of the reduction's stream starts after
  // `computed`. Parameters that were not announced count as ready in end_slot. Without a slot: the
  // one that began last.
  void gradient_ready(int param, const Event& computed = {}) {
    gradient_ready(param, slot_, computed);
  }
  void gradient_ready(int param, int64_t slot, const Event& computed);
  void end_slot() { end_slot(slot_); }
  // Later work of the reduction's stream starts after `computed`.
  void end_slot(int64_t slot, const Event& computed = {});
  void finish();

  // Ascending, in the flat numbering. Stage 0: everything. Outside of them, finish() leaves
  // gradients undefined.
  std::vector<FlatRange> owned_ranges() const;
  // From stage 2 on, or with a host: the gradients of owned_ranges(), one behind the other. The
  // store has none then.
  std::span<float> owned_gradients() const { return reduction_.sums(); }
  // How the ranks would share the store out, in all stages; for work on shares such as the norm.
  const ShardLayout& layout() const { return layout_; }
  // Stages 1 and 2: every rank gets the owners' values of a flat store (compute copies or masters;
  // `store` has one element an element of the range). From its begin, as forward needs it. The
  // result is there when the event has happened. Stage 0: nothing to do.
  Event gather_parameters(Buffer store);

  // After finish(), or after the event of gather_parameters.
  DataParallelStats stats() const;
  void reset_stats();

 private:
  using Clock = std::chrono::steady_clock;
  // Gradients that are reduced together: those of a slot, or of the step.
  struct Round {
    std::vector<int> missing;       // announcements, by bucket
    std::vector<Tensor> gradients;  // by bucket, where they are held here
    size_t next = 0;                // bucket to reduce; the order is the same on all ranks
    int64_t slot = 0;               // exact mode asks who has a micro-batch
  };
  struct Slot {
    std::vector<bool> announced;
    bool open = true;
  };

  bool works() const { return reduction_.ranks() > 1 || sums_; }
  void launch_ready(Round& round);
  void launch_all(Round& round);
  int64_t own_slots() const;
  int64_t active(int64_t slot) const;
  int64_t senders(int64_t slot) const;
  Round& round_of(int64_t slot) { return rounds_[each_slot_ ? slot : 0]; }
  Tensor& held(Round& round, size_t bucket);
  void launch(Round& round);
  void wait_exposed();
  void wait_for_room();
  template <class F>
  void timed(F&& enqueue);
  Buffer gradient_buffer(FlatRange range) const;
  Buffer zeros(int64_t elements);

  Communicator& shard_;
  Communicator* replicate_;
  Stream& stream_;
  DataParallelConfig config_;
  FlatRange range_;
  int first_param_, last_param_;
  int64_t data_ranks_, data_rank_, sources_;
  bool each_slot_, holds_, host_, sums_;
  ShardLayout layout_;
  GradientReduction reduction_;
  std::vector<std::vector<size_t>> buckets_of_param_;
  std::vector<int> params_in_bucket_;
  int exceptions_ = std::uncaught_exceptions();

  // Of the step in progress.
  std::span<float> gradients_;
  int64_t slot_ = -1, micro_batches_ = 0;
  std::map<int64_t, Slot> slots_;
  std::map<int64_t, Round> rounds_;
  std::vector<int64_t> last_added_;  // by bucket: slots must be added in order
  Tensor zeros_;                     // of the largest unit, where a rank has no micro-batch
  std::deque<Event> in_flight_;      // reductions whose gradients are held here

  Clock::time_point reduction_begin_;  // touched by the stream only
  DataParallelStats stats_;
};

}  // namespace shoestring
