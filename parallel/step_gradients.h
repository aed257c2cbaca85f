#pragma once
// The gradients of one rank under a mesh, from the tape to the optimiser: which ranks' parts of
// each are summed, when, and over which group (docs/mesh.md, "Who sums what"). Every sum is plain:
// seeds are divided by the labels of the whole step.
//
//   gradients.begin_step(micro_batches);
//   for (round = 0; round < gradients.rounds(); ++round) {
//     if (gradients.has_micro_batch(round)) {
//       gradients.begin_round(round);
//       run a schedule whose tapes have gradients.sharding()'s sources
//     } else {
//       gradients.skip_round(round);
//     }
//   }
//   gradients.finish();
//   optimiser on owned_ranges(); gather_parameters(...)
//
// Without pipelines a round is one micro-batch of this rank; a pipeline has one round, in which all
// its micro-batches run. Sums over tensor ranks come first, as soon as a gradient is complete, then
// those over replicas (parallel/data_parallel.h), dense parameters and routed experts apart.
//
// Plain sums add a rank's micro-batches where they are, and ranks once a step. Exact ones add each
// micro-batch's own gradient, complete over stages and experts, in the order of micro-batches: the
// bits of one rank under any number of data, expert and pipeline ranks.

#include <functional>
#include <memory>
#include <vector>

#include "parallel/data_parallel.h"
#include "parallel/gathered_weights.h"
#include "parallel/model_part.h"
#include "parallel/param_shards.h"
#include "parallel/param_units.h"
#include "parallel/sharding_pass.h"
#include "parallel/stage_sharding.h"

namespace shoestring {

// A run of a parameter's elements.
struct ParamRange {
  int param = 0;  // index in the store
  int64_t begin = 0, end = 0;
};

class StepGradients {
 public:
  struct Config {
    DataParallelConfig sharing = {};
    std::function<bool(const Param&)> whole = nullptr;  // parameters that no border may cut
    // Offload of the optimiser, from stage 1 on: masters and sums of gradients lie there.
    Device* host = nullptr;
  };
  // `store` was built from part.parameters() with memory_of_stage(). All outlive this. `compute`:
  // the tapes' stream. All ranks of the mesh construct at once.
  StepGradients(ModelPart& part, ParamStore& store, Stream& compute, const Config& config);

  // Where the tapes of a step find parameters, and the instructions that the schedule needs.
  StageSharding& sharding() { return *sharding_; }
  ShardingOptions instructions() const;
  // Masters and weights of what this rank owns (ZeRO; parallel/param_shards.h).
  ParamShards& shards() { return *shards_; }
  const ParamShards& shards() const { return *shards_; }
  // Does no rank hold all of its stages' weights (stage 3)? Then forward passes gather them, and
  // all replicas run as many.
  bool gathers_weights() const { return zero_stage_ > 2; }

  void begin_step(int64_t micro_batches);  // of all data ranks
  int64_t rounds() const { return rounds_; }
  bool has_micro_batch(int64_t round) const;
  void begin_round(int64_t round);
  void skip_round(int64_t round) { sharding_->idle(round); }
  void finish();
  // Behind it, of owned_ranges(): the sums of gradients.
  FlatSpan<const float> gradients() const;

  // Of the flat numbering, ascending: what this rank updates.
  std::vector<FlatRange> owned_ranges() const;
  // The same by group of parameters, with this rank's number among those that update the same.
  struct Owned {
    std::vector<FlatRange> ranges = {};
    int rank = 0;
  };
  std::vector<Owned> owned_by_group() const;
  // What this rank's share of a sum over all parameters is, each counted once in the world.
  std::vector<ParamRange> counted() const;
  // Behind the update of what is owned: every rank gets what its passes read. Waits.
  void gather_parameters();

  DataParallelStats stats() const;
  void reset_stats();

 private:
  struct Group {
    size_t first = 0, last = 0;  // parameters
    std::vector<int> stages = {};
    std::vector<ParamUnit> units = {};  // from stage 2 on
    DataParallelConfig config = {};
    std::vector<ParamExtent> params = {};
    std::vector<FlatRange> owned = {};
    int64_t sources = 1;
    bool shared = false, experts = false;
    FlatRange range = {};
    Replicas ranks = {};
    std::unique_ptr<Stream> stream = {};
    std::unique_ptr<DataParallel> sharing = {};  // null: no such parameters
    std::unique_ptr<GatheredWeights> weights = {};
    int replica() const;
  };
  void list_groups();
  void lay_out(Group& group, const Config& config);
  void make_group(Group& group, int64_t first_owned);
  StageGroup plan_of(Group& group);
  void zero_gradients();

  ModelPart& part_;
  ParamStore& store_;
  Stream& compute_;
  int64_t zero_stage_;
  bool each_slot_;  // a reduction follows each micro-batch
  std::vector<Group> groups_;
  Device* host_ = nullptr;
  Tensor sums_;  // of gradients, from stage 2 on or with a host
  std::unique_ptr<ParamShards> shards_;
  std::unique_ptr<Communicator> sharers_;  // of the embedding
  std::unique_ptr<StageSharding> sharding_;
  std::vector<int64_t> left_;  // plain sums: announcements of each parameter in this step
  int64_t micro_batches_ = 0, rounds_ = 0;
};

}  // namespace shoestring
