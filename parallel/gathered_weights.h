#pragma once
// Weights of ZeRO stage 3 (Rajbhandari et al. 2020, arXiv 1910.02054): each rank owns shards
// (parallel/param_shards.h); a unit's weights are gathered before ops read them and let go after.
// Either unit by unit in every micro-batch, the next unit while one is in use, once for the forward
// and once for the backward pass; or all at once, kept over the micro-batches of a step.
//
// Gathers have a communicator and a stream of their own, and an order that is the same on all
// ranks: units ascend in the forward pass and descend in the backward pass, whatever is asked for
// first.

#include <chrono>
#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/param_shards.h"
#include "parallel/param_units.h"

namespace shoestring {

struct GatherPlan {
  Communicator& shard;  // whose ranks share the parameters out
  const ParamStore& store;
  const ShardLayout& layout;  // its buckets are the units
  const ParamShards& shards;
  const std::vector<ParamUnit>& units;
  int64_t first = 0;  // the element of shards.weights() that the units' shards begin at
};

// Since the last reset.
struct GatherStats {
  int64_t bytes_sent = 0, gathers = 0;
  double gather_seconds = 0;   // on their stream
  double exposed_seconds = 0;  // that compute waited for weights
};

class GatheredWeights {
 public:
  // All ranks of `shard` construct at once. All arguments outlive this.
  explicit GatheredWeights(const GatherPlan& plan);
  ~GatheredWeights();  // when an exception is under way, peers are told
  GatheredWeights(const GatheredWeights&) = delete;
  GatheredWeights& operator=(const GatheredWeights&) = delete;

  // For the micro-batches that follow, until release(). Twice, or without the other: an error.
  void gather();
  void release(const Event& used = {});  // `used`: when they have been read
  bool kept() const { return kept_; }
  // What a micro-batch gathers, for a rank that has none in a slot where others have one. Enqueued:
  // their gradients may wait for this rank while their weights do.
  void idle(bool backward = true);

  // Before the optimiser: gathers that nobody had to wait for here may still read the shards.
  void finish();

  int units() const { return static_cast<int>(units_.size()); }
  bool has(int param) const { return param >= first_param_ && param < last_param_; }
  int unit_of(int param) const {
    return unit_of_param_.at(static_cast<size_t>(param - first_param_));
  }
  Tensor weight(const Param& p) const;  // while gathered

  GatherStats stats() const;  // when no gather is under way
  void reset_stats() { stats_ = {}; }

 private:
  friend class WeightPass;
  using Clock = std::chrono::steady_clock;
  struct Unit {
    FlatRange range;
    bool held = false;
    size_t bucket = 0;
    int64_t shard_begin = 0;  // of the own piece, within the shards
    Tensor weights = {};
    Event ready = {};
    int users = 0;
  };
  void acquire(int unit);
  void enqueue(int unit, Buffer into);
  void release(int unit, const Event& used);
  void wait(int unit, Stream& compute);

  Communicator& parent_;
  const ParamStore& store_;
  const ShardLayout& layout_;
  const ParamShards& shards_;
  std::vector<Unit> units_;
  int first_param_ = 0, last_param_ = 0;
  std::vector<int> unit_of_param_;
  bool kept_ = false;
  std::unique_ptr<Communicator> lane_;
  Stream stream_;
  int exceptions_ = std::uncaught_exceptions();
  Clock::time_point gather_begin_;  // touched by the stream only
  GatherStats stats_;
};

// One micro-batch's way through the units.
class WeightPass {
 public:
  WeightPass(GatheredWeights& weights, Stream& compute);
  // Goes to the end of its order, as the other ranks do; not when an exception is under way.
  ~WeightPass();
  WeightPass(const WeightPass&) = delete;
  WeightPass& operator=(const WeightPass&) = delete;

  // From here on units are asked for in descending order.
  void turn_back();
  bool backward() const { return backward_; }
  // The unit's weights are there for what is enqueued on the compute stream from here on; the next
  // one is on its way.
  void need(int unit);
  // The phase has no more use for it.
  void done(int unit);

 private:
  void sweep(int to);
  void drop(int unit);
  void finish();

  GatheredWeights& weights_;
  Stream& compute_;
  std::vector<bool> mine_;  // acquired here
  bool backward_ = false, in_kept_ = false;
  int next_ = 0;
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace shoestring
