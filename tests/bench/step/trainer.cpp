#include "tests/bench/step/trainer.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "core/random.h"
#include "optim/norm.h"
#include "tests/bench/step/llama_files.h"

namespace shoestring {
namespace {

// The store, with finished gradients announced to whoever shares them among ranks.
class AnnouncingSource : public StoreSource {
 public:
  AnnouncingSource(ParamStore& store, DataParallel& parallel)
      : StoreSource(store), parallel_(parallel) {}
  void gradient_ready(const Param& p) override { parallel_.gradient_ready(p.index); }

 private:
  DataParallel& parallel_;
};

MicroBatch random_rows(const StepOptions& options) {
  const RandomStream random(1, "tokens");
  std::vector<int32_t> ids;
  const auto vocabulary = static_cast<uint64_t>(options.model.vocabulary);
  for (int64_t i = 0; i < options.rows * (options.length + 1); ++i) {
    ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(i), vocabulary)));
  }
  return whole_rows(ids, options.rows, options.length);
}

MicroBatch rows_of(const MicroBatch& whole, int64_t begin, int64_t end) {
  const int64_t length = whole.length;
  MicroBatch m{.sequences = end - begin, .length = length, .valid_labels = (end - begin) * length};
  auto take = [&](const std::vector<int32_t>& from) {
    return std::vector<int32_t>(from.begin() + begin * length, from.begin() + end * length);
  };
  m.tokens = take(whole.tokens);
  m.labels = take(whole.labels);
  m.positions = take(whole.positions);
  m.first_key = take(whole.first_key);
  return m;
}

ModelConfig fitted(ModelConfig config, int64_t length) {
  config.max_positions = length;
  return config;
}

int threads_of_rank(const StepOptions& options) {
  const int all = options.threads > 0 ? options.threads : hardware_threads();
  return std::max(1, all / options.ranks);
}

std::vector<ParamExtent> extents_of(const ParamStore& store) {
  std::vector<ParamExtent> extents;
  for (const Param& p : store.params()) extents.push_back({p.offset, p.offset + p.elements});
  return extents;
}

}  // namespace

std::vector<MicroBatch> batch_of(const StepOptions& options) {
  std::vector<MicroBatch> whole;
  if (options.batch.empty()) {
    whole.push_back(random_rows(options));
  } else {
    whole = load_token_rows(options.batch);
  }
  std::vector<MicroBatch> parts;
  for (const MicroBatch& m : whole) {
    for (int64_t r = 0; r < options.ranks; ++r) {
      parts.push_back(
          rows_of(m, m.sequences * r / options.ranks, m.sequences * (r + 1) / options.ranks));
    }
  }
  return parts;
}

StepTrainer::StepTrainer(const StepOptions& options, const std::vector<MicroBatch>& batch,
                         Communicator& ranks)
    : options_(options),
      batch_(batch),
      ranks_(ranks),
      device_(DeviceKind::cpu, 0, threads_of_rank(options)),
      compute_(Stream::immediate(device_)),
      communication_(ranks.size() > 1 ? Stream::worker(device_, "communication")
                                      : Stream::immediate(device_)),
      model_config_(fitted(options.model, batch.at(0).length)),
      store_(device_, parameters_of(model_config_, whole_model(model_config_)),
             dtype_from_name(options.dtype)),
      model_(model_config_, store_, whole_model(model_config_)),
      parallel_(ranks, communication_, {.exact = options.exact}, store_.elements(),
                extents_of(store_)),
      all_{0, store_.elements()},
      optimizer_(device_, store_.params(), options.optim, {&all_, 1}, 1) {
  options.weights.empty() ? store_.initialise(1) : load_llama_weights(options.weights, store_);
}

double StepTrainer::run(const MicroBatch& micro, int64_t labels) {
  const BatchTensors tensors = to_device(device_, micro);
  AnnouncingSource source(store_, parallel_);
  Tape tape(compute_, source, Tape::Mode::training);
  if (options_.profile) tape.observe(&ops_);
  LayerContext context{.tape = tape,
                       .batch = tensors,
                       .recompute = recompute_from_name(options_.recompute),
                       .exact = options_.exact};
  const LossOptions loss{.loss_scale = 1.0 / static_cast<double>(labels), .exact = options_.exact};
  const double sum = model_.run(context, loss).loss_sum;
  tape.backward();
  return sum;
}

double StepTrainer::accumulate(int64_t labels) {
  const auto count = static_cast<int64_t>(batch_.size());
  double sum = 0;
  for (int64_t slot = 0; slot < parallel_.slots(count); ++slot) {
    parallel_.begin_slot(store_.gradients(), slot, count);
    if (parallel_.zero_before(slot)) {
      const OpTimes::Span span(ops_, "zero gradients");
      store_.zero_gradients();
    }
    if (parallel_.has_micro_batch(slot, count)) {
      sum += run(batch_[static_cast<size_t>(slot * ranks_.size() + ranks_.rank())], labels);
    }
    const OpTimes::Span span(ops_, "share gradients");
    parallel_.end_slot();
  }
  const OpTimes::Span span(ops_, "share gradients");
  parallel_.finish();
  ranks_.all_reduce(buffer_of(std::span(&sum, 1)), Reduce::sum, communication_);
  communication_.synchronize();
  return sum;
}

StepTrainer::Outcome StepTrainer::step(int64_t number) {
  Outcome outcome;
  int64_t labels = 0;
  for (const MicroBatch& micro : batch_) labels += micro.valid_labels;
  outcome.loss = accumulate(labels) / static_cast<double>(labels);
  {
    const OpTimes::Span span(ops_, "gradient norm");
    outcome.norm = global_norm(device_, store_.gradients());
  }
  const OpTimes::Span span(ops_, "adamw");
  optimizer_.update({.step = number,
                     .lr = options_.optim.lr,
                     .gradient_scale = clip_coefficient(outcome.norm, options_.optim.clip),
                     .master = {store_.master()},
                     .gradients = {store_.gradients()},
                     .copy = {store_.compute_copy()}});
  store_.raise_version();
  return outcome;
}

int64_t StepTrainer::tokens() const {
  int64_t sum = 0;
  for (const MicroBatch& m : batch_) sum += m.sequences * m.length;
  return sum;
}

double StepTrainer::flop() const {
  return static_cast<double>(tokens()) *
         training_flop_per_token(model_config_, batch_.at(0).length);
}

}  // namespace shoestring
