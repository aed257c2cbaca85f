#pragma once
// A group of a small model's parameters on a data parallel rank, in any ZeRO stage and on one or
// two levels, and what came of a training.

#include <cstring>
#include <map>
#include <tuple>

#include "core/text.h"
#include "optim/optimizer.h"
#include "parallel/reducing_source.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {

struct ZeroPlan {
  int ranks = 1, replicas = 1;
  int64_t stage = 0;
  bool exact = false;
  GradientLife gradients = GradientLife::automatic;
  Dtype dtype = Dtype::f32;
  std::string optimizer = "adamw";
  int64_t micro_batches = 4;
  int steps = 3;
  bool kept = false;  // stage 3: gathered once a step
  bool worker = true;
  int groups = 1;            // of parameters, one behind the other
  bool host = false;         // masters, moments and gradient sums there
  bool activations = false;  // they too
  Recompute recompute = Recompute::none;
  ModelConfig model = small_model();
};

using Moments = std::map<std::tuple<std::string, std::string, int64_t>, float>;

struct ZeroRank {
  std::map<MemoryKind, int64_t> peak, end;  // of the device, bytes
  int64_t host_peak = 0, owned = 0;
  DataParallelStats reduction;  // of the last step, first group
  GatherStats gathers;
};
struct ZeroOutcome {
  std::vector<float> master;
  std::vector<double> losses;
  Moments moments;  // by name, kind and element of the parameter
  int64_t bytes_on_the_wire = 0;
  std::vector<ZeroRank> ranks;
};

inline bool same_bits(const ZeroOutcome& a, const ZeroOutcome& b) {
  return a.losses == b.losses && a.moments == b.moments && a.master.size() == b.master.size() &&
         std::memcmp(a.master.data(), b.master.data(), a.master.size() * sizeof(float)) == 0;
}

// Micro-batch g of a step: its own tokens and number of labels.
inline MicroBatch zero_rows(const ModelConfig& model, int64_t step, int64_t g) {
  MicroBatch m = some_rows(model.vocabulary, 10 + 2 * (g % 2));
  const auto by = static_cast<int32_t>(7 * g + 11 * step);
  for (int32_t& token : m.tokens) {
    token = static_cast<int32_t>((token + by) % model.vocabulary);
  }
  for (int64_t i = 0; i < g % 3; ++i) {
    m.valid_labels -= m.labels[static_cast<size_t>(i)] >= 0;
    m.labels[static_cast<size_t>(i)] = -1;
  }
  return m;
}

// One rank's share of a group of parameters, [first, last).
class ZeroGroup {
 public:
  ZeroGroup(const ZeroPlan& plan, ParamStore& store, Communicator& world, Device& host,
            std::pair<int, int> params)
      : units_(units_of(store, params.first, params.second)),
        plan_(plan),
        store_(store),
        stream_(plan.worker ? Stream::worker(store.device(), "comm")
                            : Stream::immediate(store.device())) {
    const int inside = plan.ranks / plan.replicas;
    shard_ = world.split(world.rank() / inside, world.rank());
    replicate_ = world.split(world.rank() % inside, world.rank());
    const OptimConfig optim{.optimizer = plan.optimizer};
    const auto whole = [&](const Param& p) { return updated_by_muon(p.info, optim); };
    const auto cost = [&](const Param& p) { return whole(p) ? muon_flop(p.info, optim.muon) : 0; };
    range_ = {units_.front().range.begin, units_.back().range.end};
    dp_ = std::make_unique<DataParallel>(DataParallelPlan{
        .shard = *shard_,
        .replicate = plan.replicas > 1 ? replicate_.get() : nullptr,
        .stream = stream_,
        .config = {.bucket_bytes = 16384,
                   .zero_stage = plan.stage,
                   .exact = plan.exact,
                   .gradients = plan.gradients},
        .range = range_,
        .first_param = params.first,
        .params = extents_of(
            store, {.first = params.first, .last = params.second, .whole = whole, .cost = cost}),
        .units = plan.stage > 1 ? ranges_of(units_) : std::vector<FlatRange>(),
        .host = plan.host ? &host : nullptr});
    shards_ = std::make_unique<ParamShards>(ParamShardsPlan{.store = store,
                                                            .owned = dp_->owned_ranges(),
                                                            .zero_stage = plan.stage,
                                                            .host = plan.host ? &host : nullptr});
    shards_->initialise(3);
    if (plan.stage == 3) {
      weights_ = std::make_unique<GatheredWeights>(GatherPlan{.shard = *shard_,
                                                              .store = store,
                                                              .layout = dp_->layout(),
                                                              .shards = *shards_,
                                                              .units = units_});
    }
    optimizer_ = std::make_unique<Optimizer>(plan.host ? host : store.device(), store.params(),
                                             optim, shards_->owned(), 1);
  }

  ParamGroup params() const { return {.gradients = dp_.get(), .weights = weights_.get()}; }
  DataParallel& dp() { return *dp_; }
  GatheredWeights* weights() { return weights_.get(); }
  const std::vector<ParamUnit>& units() const { return units_; }
  template <class T>
  std::span<T> in_store(std::span<T> all) const {
    return all.empty() ? all
                       : all.subspan(static_cast<size_t>(range_.begin),
                                     static_cast<size_t>(range_.elements()));
  }
  void update(int64_t step, Stream& stream) {
    const FlatSpan<float> master = shards_->master();
    const FlatSpan<BFloat16> copies = shards_->copies();
    FlatSpan<const float> gradients{.values = store_.gradients(), .ranges = {}};
    if (plan_.stage > 1 || plan_.host) gradients = {dp_->owned_gradients(), 0, shards_->owned()};
    optimizer_->update({.step = step,
                        .lr = 1e-2,
                        .master = {master.values, 0, master.ranges},
                        .gradients = gradients,
                        .copy = {copies.values, 0, copies.ranges}});
    shards_->publish(stream);
    stream.synchronize();
    if (plan_.stage == 3) return;
    dp_->gather_parameters(store_.compute() == Dtype::bf16
                               ? buffer_of(in_store(store_.compute_copy()))
                               : buffer_of(in_store(store_.master())))
        .wait();
  }
  // What this rank owns.
  int64_t report(ZeroOutcome& outcome) const {
    const FlatSpan<float> master = shards_->master();
    const FlatSpan<float> values{master.values, 0, master.ranges};
    int64_t owned = 0;
    for (const FlatRange& r : shards_->owned()) {
      std::copy_n(values.at(r), r.elements(), outcome.master.data() + r.begin);
      owned += r.elements();
    }
    for (const StateTensor& s : optimizer_->state()) {
      for (int64_t i = s.begin; i < s.end; ++i) {
        outcome.moments[{s.name, s.kind, i}] =
            s.values.span<float>()[static_cast<size_t>(i - s.begin)];
      }
    }
    return owned;
  }

 private:
  std::vector<ParamUnit> units_;
  const ZeroPlan& plan_;
  ParamStore& store_;
  FlatRange range_;
  std::unique_ptr<Communicator> shard_, replicate_;
  Stream stream_;
  std::unique_ptr<DataParallel> dp_;
  std::unique_ptr<ParamShards> shards_;
  std::unique_ptr<GatheredWeights> weights_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace shoestring
