#include "launcher/step.h"

#include <chrono>
#include <cmath>

#include "core/check.h"
#include "core/text.h"
#include "launcher/step_flop.h"
#include "optim/norm.h"
#include "parallel/ordered_sums.h"
#include "parallel/reducing_source.h"

namespace shoestring {
namespace {

constexpr int64_t main_figures = 4;    // of a micro-batch: loss, penalty, correct, attended pairs
constexpr int64_t module_figures = 3;  // and of each prediction module: loss, labels, agreements

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The first weight that is not finite, if any: a cause rather than a consequence.
std::string text_of_bad_weight(const RankState& rank) {
  const ParamStore& store = *rank.store;
  const auto bad = first_non_finite(store.params(), FlatSpan<const float>{store.master()},
                                    {0, store.elements()});
  return bad ? cat("tensor ", bad->name, " (element ", bad->element, " of the weight is ",
                   bad->value, ")")
             : "tensor logits";
}

}  // namespace

// Records its own lifetime on the compute lane.
class StepRunner::Span {
 public:
  Span(const StepRunner& runner, std::string name)
      : runner_(runner),
        name_(std::move(name)),
        begin_(runner.trace_.writer() ? runner.trace_.writer()->now() : 0) {}
  ~Span() {
    if (TraceWriter* trace = runner_.trace_.writer()) {
      trace->event(runner_.trace_.rank(), "compute", name_, begin_, trace->now());
    }
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  const StepRunner& runner_;
  std::string name_;
  double begin_;
};

void StepRunner::check_loss(const Batch& batch, size_t slot, int64_t first_not_finite,
                            double sum) const {
  if (std::isfinite(sum)) return;
  const MicroBatch& micro = batch.micro[slot];
  const int64_t row = std::max<int64_t>(first_not_finite, 0) / micro.length;
  throw StepNotFinite(cat("the loss is not finite: rank ", rank_.ranks.rank(), ", step ",
                          batch.step + 1, ", ", text_of_bad_weight(rank_), ", sample ",
                          micro.sample_ids.at(static_cast<size_t>(row)), ", position ",
                          std::max<int64_t>(first_not_finite, 0) % micro.length,
                          "; nothing was updated"));
}

StepRunner::MicroBatchResult StepRunner::run_micro_batch(const Batch& batch, size_t slot) {
  const RunConfig& config = rank_.config;
  const BatchTensors tensors = to_device(rank_.device, batch.micro[slot]);
  ReducingSource source(*rank_.store, *rank_.parallel, rank_.compute);
  Tape tape(rank_.compute, source, Tape::Mode::training);
  if (trace_.writer()) tape.observe(&trace_);
  const bool probed =
      rank_.watchdog && rank_.watchdog->due(batch.step) && batch.global_indices[slot] == 0;
  const Fp8Watchdog::Probing probing(probed ? rank_.fp8.get() : nullptr,
                                     probed ? &rank_.watchdog->begin() : nullptr);
  if (statistics_) tape.want_statistics();
  const auto labels = static_cast<double>(std::max<int64_t>(batch.global_valid_labels, 1));
  const double share = static_cast<double>(batch.micro[slot].valid_labels) / labels;
  LayerContext context{.tape = tape,
                       .batch = tensors,
                       .loads = routing_.loads(),
                       .share = share,
                       .recompute = recompute_from_name(config.train.recompute),
                       .fp8 = rank_.fp8.get(),
                       .exact = config.train.exact};
  MicroBatchResult result;
  {
    const Span span(*this, cat("forward ", batch.global_indices[slot]));
    const LossOptions options{.loss_scale = 1.0 / labels,
                              .z_loss = config.train.z_loss,
                              .exact = config.train.exact,
                              .predictions = &result.predictions};
    result.main = rank_.model->run(context, options);
  }
  check_loss(batch, slot, result.main.first_not_finite,
             result.main.loss_sum + result.main.penalty_sum);
  for (const PredictionResult& p : result.predictions) {
    check_loss(batch, slot, p.first_not_finite, p.loss_sum);
  }
  if (statistics_) statistics_->keep(tape);
  routing_.keep(&tape, share);
  probing.end_forward();
  const Span span(*this, cat("backward ", batch.global_indices[slot]));
  tape.backward();
  return result;
}

std::optional<std::vector<double>> StepRunner::accumulate(const Batch& batch, const Stop& stop) {
  DataParallel& parallel = *rank_.parallel;
  std::vector<double> own;
  size_t next = 0;
  const int64_t window = rank_.config.model.window;
  const int64_t slots = parallel.slots(batch.global_micro_batches);
  for (int64_t slot = 0; slot < slots; ++slot) {
    // No reduction is in flight: the last slot starts plain mode's, exact mode has had its own.
    if (slot > 0 && stop && stop()) return std::nullopt;
    parallel.begin_slot(rank_.store->gradients(), slot, batch.global_micro_batches);
    if (parallel.zero_before(slot)) rank_.store->zero_gradients();
    if (parallel.has_micro_batch(slot, batch.global_micro_batches)) {
      const MicroBatch& micro = batch.micro[next];
      const MicroBatchResult r = run_micro_batch(batch, next++);
      own.insert(own.end(),
                 {r.main.loss_sum, r.main.penalty_sum, static_cast<double>(r.main.correct),
                  static_cast<double>(attended_pairs(micro, window))});
      for (const PredictionResult& p : r.predictions) {
        own.insert(own.end(),
                   {p.loss_sum, static_cast<double>(p.count), static_cast<double>(p.agreed)});
      }
    } else {
      routing_.keep(nullptr, 0);
    }
    parallel.end_slot();
  }
  const Span span(*this, "wait for gradients");
  parallel.finish();
  return own;
}

double StepRunner::gradient_norm(const Batch& batch) const {
  ParamStore& store = *rank_.store;
  const FlatSpan<const float> gradients{store.gradients()};
  std::vector<double> own;
  std::vector<TermRun> runs;
  std::vector<FlatRange> ranges;
  for (const ShardLayout::Piece& piece : rank_.parallel->layout().pieces()) {
    ranges.push_back(piece.range);
    runs.push_back({piece.rank, norm_terms(ranges.back())});
    if (piece.rank != rank_.ranks.rank()) continue;
    const std::vector<double> terms = square_sums(rank_.device, gradients, ranges.back());
    own.insert(own.end(), terms.begin(), terms.end());
  }
  const std::vector<double> terms = gather_terms(rank_.ranks, rank_.communication, own, runs);
  const double norm = std::sqrt(sum_of_squares(ranges, terms));
  if (std::isfinite(norm)) return norm;
  fail_gradient(batch);
}

void StepRunner::fail_gradient(const Batch& batch) const {
  const StepShape shape = rank_.loader->schedule().at(batch.step);
  const FlatSpan<const float> gradients{rank_.store->gradients()};
  for (FlatRange owned : rank_.parallel->owned_ranges()) {
    const auto bad = first_non_finite(rank_.store->params(), gradients, owned);
    if (!bad) continue;
    throw StepNotFinite(cat("a gradient is not finite: rank ", rank_.ranks.rank(), ", step ",
                            batch.step + 1, ", tensor ", bad->name, ", element ", bad->element,
                            " is ", bad->value, ", samples ", shape.first_sample, " to ",
                            shape.first_sample + shape.samples() - 1, "; nothing was updated"));
  }
  // The rank that owns the element names it. This one waits here for that rank's abort: to give up
  // first would take the owner out of the exchange of norms that it may still be in.
  any_rank(rank_.ranks, rank_.communication, false);
  throw PeerFailure(cat("step ", batch.step + 1, ": another rank's gradient is not finite"));
}

void StepRunner::update(const StepReport& report) {
  const Span span(*this, "update");
  ParamStore& store = *rank_.store;
  rank_.optimizer->update(
      {.step = rank_.updates + 1,
       .lr = report.lr,
       .gradient_scale = clip_coefficient(report.gradient_norm, rank_.config.optim.clip),
       .master = {store.master()},
       .gradients = {store.gradients()},
       .copy = {store.compute_copy()}});
  if (rank_.ema) rank_.ema->update({store.master()});
  ++rank_.updates;
  rank_.publish_weights();
}

StepReport StepRunner::run(const Batch& batch, const Stop& stop) {
  StepReport report;
  auto start = std::chrono::steady_clock::now();
  rank_.parallel->reset_stats();
  statistics_.reset();
  routing_.begin();
  rank_.model->set_mtp_weight(rank_.stage_at(batch.step).mtp_weight);
  if (StepStatistics::due(rank_.config, batch.step)) statistics_.emplace(rank_);
  const auto own = accumulate(batch, stop);
  if (!own) return {.skip_reason = {}, .abandoned = true};
  report.reduction_seconds = rank_.parallel->stats().reduction_seconds;
  report.exposed_seconds = rank_.parallel->stats().exposed_seconds;
  report.compute_seconds = seconds_since(start) - report.exposed_seconds;
  start = std::chrono::steady_clock::now();
  const int64_t modules = rank_.config.model.mtp.depth;
  const std::vector<double> sums =
      sum_micro_batches(rank_.ranks, rank_.communication, *own, batch.global_micro_batches,
                        main_figures + modules * module_figures);
  const auto labels = static_cast<double>(std::max<int64_t>(batch.global_valid_labels, 1));
  report.loss = sums[0] / labels;
  report.penalty = sums[1] / labels;
  report.accuracy = sums[2] / labels;
  report.attended_pairs = sums[3];
  report.gradient_norm = gradient_norm(batch);
  if (rank_.watchdog && rank_.watchdog->due(batch.step)) {
    report.watchdog = rank_.watchdog->finish(rank_.ranks, rank_.communication, report.fallen);
  }
  if (statistics_) report.statistics = statistics_->finish(batch.global_micro_batches);
  for (int64_t k = 0; k < modules; ++k) {
    const double* module = sums.data() + main_figures + k * module_figures;
    if (module[1] == 0) continue;  // no position has a label so far ahead: nothing was measured
    report.statistics.emplace_back(cat("mtp/loss_", k + 1), module[0] / labels);
    report.statistics.emplace_back(cat("mtp/agreement_", k + 1), module[2] / module[1]);
  }
  const auto routed = routing_.finish(batch.global_micro_batches, statistics_.has_value());
  report.statistics.insert(report.statistics.end(), routed.named.begin(), routed.named.end());
  report.max_vio = routed.max_vio;
  report.dropped = routed.dropped;
  report.lr = rank_.lr_at(batch.step);
  const StepGuard::Verdict verdict = rank_.guard.judge(report.loss, report.gradient_norm);
  report.skipped = verdict.skip;
  report.skip_reason = verdict.reason;
  if (!report.skipped) {
    update(report);
    routing_.move_biases(rank_.stage_at(batch.step).bias_speed);
  }
  ++rank_.step;
  report.update_seconds = seconds_since(start);
  return report;
}

}  // namespace shoestring
