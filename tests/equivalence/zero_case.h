#pragma once
// A small model trained by data parallel ranks (threads) with the optimiser.

#include <mutex>

#include "parallel/activation_offload.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/in_process.h"
#include "parallel/ordered_sums.h"
#include "tests/equivalence/zero_group.h"

namespace shoestring {

class ZeroRun {
 public:
  ZeroRun(Communicator& world, const ZeroPlan& plan)
      : world_(world),
        plan_(plan),
        store_(device_, parameters_of(plan.model, whole_model(plan.model)), plan.dtype,
               memory_of_stage(plan.stage, plan.dtype, plan.host)),
        model_(plan.model, store_, whole_model(plan.model)) {
    const auto count = static_cast<int>(store_.params().size());
    for (int g = 0; g < plan.groups; ++g) {
      groups_.push_back(std::make_unique<ZeroGroup>(
          plan, store_, world, host_,
          std::pair(count * g / plan.groups, count * (g + 1) / plan.groups)));
      params_.push_back(groups_.back()->params());
    }
  }

  ZeroGroup& group(int g) { return *groups_[static_cast<size_t>(g)]; }
  Device& device() { return device_; }
  ParamStore& store() { return store_; }

  void step(int64_t number, std::vector<double>& losses) {
    const int64_t n = plan_.micro_batches;
    DataParallel& first = group(0).dp();
    for (auto& g : groups_) g->dp().reset_stats();
    if (plan_.kept) gathers(true);
    MicroBatchRows own;
    for (int64_t slot = 0; slot < first.slots(n); ++slot) {
      for (auto& g : groups_) g->dp().begin_slot(g->in_store(store_.gradients()), slot, n);
      if (first.zero_before(slot)) store_.zero_gradients();
      if (first.has_micro_batch(slot, n)) {
        const int64_t g = slot * plan_.ranks + world_.rank();
        own.add(g, {micro_batch(number, g)});
      } else {
        for (auto& g : groups_) {
          if (g->weights() != nullptr) g->weights()->idle();
        }
      }
      for (auto& g : groups_) g->dp().end_slot();
    }
    if (plan_.kept) gathers(false);
    for (auto& g : groups_) {
      if (g->weights() != nullptr) g->weights()->finish();
      g->dp().finish();
    }
    for (auto& g : groups_) g->update(number + 1, copies_);
    store_.raise_version();
    losses.push_back(sum_rows(world_, comm_, own)[0]);
  }

  void report(ZeroOutcome& outcome) {
    ZeroRank& rank = outcome.ranks[static_cast<size_t>(world_.rank())];
    for (int k = 0; k < num_memory_kinds; ++k) {
      const auto kind = static_cast<MemoryKind>(k);
      rank.peak[kind] = device_.ledger().peak(kind);
      rank.end[kind] = device_.ledger().current(kind);
    }
    rank.host_peak = host_.ledger().peak_total();
    rank.reduction = group(0).dp().stats();
    if (group(0).weights() != nullptr) rank.gathers = group(0).weights()->stats();
    outcome.master.resize(static_cast<size_t>(store_.elements()));
    for (auto& g : groups_) rank.owned += g->report(outcome);
  }

 private:
  void gathers(bool begin) {
    for (auto& g : groups_) {
      if (g->weights() != nullptr) begin ? g->weights()->gather() : g->weights()->release();
    }
  }
  double micro_batch(int64_t step, int64_t g) {
    const BatchTensors batch = to_device(device_, zero_rows(plan_.model, step, g));
    ReducingSource source(store_, params_, compute_);
    ActivationOffload offload(source, host_, copies_);
    Tape tape(compute_, plan_.activations ? static_cast<ParamSource&>(offload) : source,
              Tape::Mode::training);
    offload.attach(tape);
    LayerContext context{
        .tape = tape, .batch = batch, .share = 0.25, .recompute = plan_.recompute, .exact = true};
    std::vector<PredictionResult> predictions;
    const double loss =
        model_.run(context, {.loss_scale = 0.01, .exact = true, .predictions = &predictions})
            .loss_sum;
    tape.backward();
    return loss;
  }

  Communicator& world_;
  const ZeroPlan& plan_;
  Device device_{DeviceKind::cpu, 0, 1}, host_{DeviceKind::cpu, 0, 1};
  Stream compute_ = Stream::immediate(device_);
  Stream comm_ = plan_.worker ? Stream::worker(device_, "comm") : Stream::immediate(device_);
  Stream copies_ = plan_.worker ? Stream::worker(device_, "copies") : Stream::immediate(device_);
  ParamStore store_;
  Transformer model_;
  std::vector<std::unique_ptr<ZeroGroup>> groups_;
  std::vector<ParamGroup> params_;
};

inline ZeroOutcome train(const ZeroPlan& plan) {
  ZeroOutcome outcome;
  outcome.ranks.resize(static_cast<size_t>(plan.ranks));
  std::mutex mutex;
  const auto traffic = std::make_shared<Traffic>();
  run_ranks(plan.ranks, [&](Communicator& world) {
    const auto counted = counting(world, traffic);
    ZeroRun run(*counted, plan);
    std::vector<double> losses;
    for (int step = 0; step < plan.steps; ++step) run.step(step, losses);
    const std::lock_guard lock(mutex);
    if (outcome.losses.empty()) outcome.losses = losses;
    check(outcome.losses == losses, "all ranks know the same losses");
    run.report(outcome);
  });
  outcome.bytes_on_the_wire = traffic->total_bytes();
  return outcome;
}

}  // namespace shoestring
