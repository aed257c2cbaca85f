#include "launcher/step.h"

#include <chrono>
#include <cmath>

#include "core/check.h"
#include "core/text.h"
#include "launcher/step_flop.h"
#include "optim/norm.h"
#include "parallel/comm/whereabouts.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

constexpr int64_t main_figures = 4;    // of a micro-batch: loss, penalty, correct, attended pairs
constexpr int64_t module_figures = 3;  // and of each prediction module: loss, labels, agreements

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The first weight that is not finite, if any: a cause rather than a consequence.
std::string text_of_bad_weight(const RankState& rank) {
  const FlatSpan<const float> masters = read_only(rank.gradients->shards().master());
  for (const FlatRange owned : rank.gradients->owned_ranges()) {
    const auto bad = first_non_finite(rank.store->params(), masters, owned);
    if (!bad) continue;
    return cat("tensor ", bad->name, " (element ", bad->element, " of the weight is ", bad->value,
               ")");
  }
  return "tensor logits";
}

}  // namespace

// Records its own lifetime on a lane of the trace.
class StepRunner::Span {
 public:
  Span(const StepRunner& runner, const char* lane, std::string name)
      : runner_(runner),
        lane_(lane),
        name_(std::move(name)),
        begin_(runner.trace_.writer() ? runner.trace_.writer()->now() : 0) {}
  ~Span() {
    if (TraceWriter* trace = runner_.trace_.writer()) {
      trace->event(runner_.trace_.rank(), lane_, name_, begin_, trace->now());
    }
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  const StepRunner& runner_;
  const char* lane_;
  std::string name_;
  double begin_;
};

StepRunner::StepRunner(RankState& rank, RunTrace& trace)
    : rank_(rank), trace_(trace), routing_(rank) {}
StepRunner::~StepRunner() = default;

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

// The watchdog looks at the step's first micro-batch, wherever its parts are. Experts that several
// ranks' tokens meet at are compared on all of them or on none.
bool StepRunner::probes(const Batch& batch, size_t slot) const {
  if (!rank_.watchdog || !rank_.watchdog->due(batch.step)) return false;
  return batch.global_indices[slot] == 0 || (slot == 0 && rank_.part->experts() != nullptr);
}

void StepRunner::begin(const Batch& batch, const Instruction& instruction, size_t slot) {
  if (probes(batch, slot)) {
    if (instruction.what == Do::F) rank_.watchdog->probe().begin_forward();
    rank_.fp8->set_probe(&rank_.watchdog->probe());
  }
  if (Whereabouts* const here = whereabouts()) here->set_micro_batch(batch.global_indices[slot]);
}

void StepRunner::end(const Batch& batch, const Instruction& instruction, size_t slot) {
  if (!probes(batch, slot)) return;
  if (instruction.what == Do::F) rank_.watchdog->probe().end_forward();
  rank_.fp8->set_probe(nullptr);
}

void StepRunner::keep(const Batch& batch, const Tape& tape, size_t slot,
                      const StageResult* result) {
  if (result != nullptr) {
    check_loss(batch, slot, result->main.first_not_finite,
               result->main.loss_sum + result->main.penalty_sum);
    for (const PredictionResult& p : result->predictions) {
      check_loss(batch, slot, p.first_not_finite, p.loss_sum);
    }
  }
  const int64_t micro = batch.global_indices[slot];
  if (statistics_) statistics_->keep(tape, micro);
  const auto labels = static_cast<double>(std::max<int64_t>(batch.global_valid_labels, 1));
  const auto own = static_cast<double>(batch.micro[slot].valid_labels);
  routing_.keep(&tape, {.micro = micro, .share = own / labels});
}

MeshStep::Hooks StepRunner::hooks(const Batch& batch) {
  MeshStep::Hooks hooks;
  hooks.forward_begins = [this](Tape& tape, int, size_t) {
    if (trace_.writer()) tape.observe(&trace_);
    if (statistics_) tape.want_statistics();
  };
  hooks.forward_done = [this, &batch](Tape& tape, int, size_t slot, const StageResult* result) {
    keep(batch, tape, slot, result);
  };
  hooks.begins = [this, &batch](const Instruction& i, size_t slot) { begin(batch, i, slot); };
  hooks.ends = [this, &batch](const Instruction& i, size_t slot) { end(batch, i, slot); };
  if (trace_.writer()) hooks.ran = [this](const InstructionSpan& span) { trace_.ran(span); };
  hooks.no_micro_batch = [this] { routing_.keep(nullptr, {}); };
  return hooks;
}

bool StepRunner::accumulate(const Batch& batch, const Stop& stop) {
  enter_phase("forward and backward", batch.step + 1);
  const bool done =
      rank_.mesh->run({.micros = batch.micro,
                       .global_micro_batches = batch.global_micro_batches,
                       .global_valid_labels = batch.global_valid_labels,
                       .stop = stop,
                       .whole_passes = rank_.watchdog && rank_.watchdog->due(batch.step)},
                      hooks(batch));
  if (!done) return false;
  enter_phase("sums of gradients", batch.step + 1);
  const Awaiting waits("sums of gradients");
  rank_.gradients->finish();
  return true;
}

std::vector<double> StepRunner::losses_of(const Batch& batch) {
  const int64_t modules = rank_.config.model.mtp.depth, window = rank_.config.model.window;
  MicroBatchRows own{.width = main_figures + modules * module_figures};
  // Ranks that share out the heads have the same loss, those that share out tokens a part of it.
  const bool tells = rank_.mesh->holds_loss() && rank_.part->tells_losses();
  for (size_t slot = 0; tells && slot < batch.micro.size(); ++slot) {
    const StageResult& r = rank_.mesh->results()[slot];
    if (r.main.count == 0 && r.predictions.empty()) continue;  // went the other way
    const bool whole = rank_.part->tells_sequences();
    own.add(batch.global_indices[slot],
            {r.main.loss_sum, r.main.penalty_sum, static_cast<double>(r.main.correct),
             whole ? static_cast<double>(attended_pairs(batch.micro[slot], window)) : 0});
    for (const PredictionResult& p : r.predictions) {
      own.append({p.loss_sum, static_cast<double>(p.count), static_cast<double>(p.agreed)});
    }
  }
  return sum_rows(rank_.ranks, rank_.communication, own);
}

double StepRunner::gradient_norm(const Batch& batch) const {
  const double norm = rank_.norm->norm(rank_.ranks, rank_.communication);
  if (std::isfinite(norm)) return norm;
  fail_gradient(batch);
}

void StepRunner::fail_gradient(const Batch& batch) const {
  const StepShape shape = rank_.loader->schedule().at(batch.step);
  const FlatSpan<const float> gradients = rank_.gradients->gradients();
  for (FlatRange owned : rank_.gradients->owned_ranges()) {
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
  const Span span(*this, "ops", "update");
  enter_phase("update", rank_.step + 1);
  const FlatSpan<float> masters = rank_.gradients->shards().master();
  rank_.optimizer->update(
      {.step = rank_.updates + 1,
       .lr = report.lr,
       .gradient_scale = clip_coefficient(report.gradient_norm, rank_.config.optim.clip),
       .master = masters,
       .gradients = rank_.gradients->gradients(),
       .copy = rank_.gradients->shards().copies()});
  if (rank_.ema) rank_.ema->update(read_only(masters));
  ++rank_.updates;
  rank_.publish_weights();
}

StepReport StepRunner::run(const Batch& batch, const Stop& stop) {
  StepReport report;
  const Span span(*this, "steps", cat("step ", batch.step + 1));
  auto start = std::chrono::steady_clock::now();
  rank_.gradients->reset_stats();
  statistics_.reset();
  routing_.begin();
  if (rank_.watchdog) {  // of a step that was left before its end
    rank_.watchdog->probe() = Fp8Probe();
    rank_.fp8->set_probe(nullptr);
  }
  rank_.mesh->set_mtp_weight(rank_.stage_at(batch.step).mtp_weight);
  if (StepStatistics::due(rank_.config, batch.step)) statistics_.emplace(rank_);
  if (!accumulate(batch, stop)) return {.skip_reason = {}, .abandoned = true};
  report.reduction_seconds = rank_.gradients->stats().reduction_seconds;
  report.exposed_seconds = rank_.gradients->stats().exposed_seconds;
  report.compute_seconds = seconds_since(start) - report.exposed_seconds;
  start = std::chrono::steady_clock::now();
  enter_phase("loss and gradient norm", batch.step + 1);
  const int64_t modules = rank_.config.model.mtp.depth;
  const std::vector<double> sums = losses_of(batch);
  const auto labels = static_cast<double>(std::max<int64_t>(batch.global_valid_labels, 1));
  report.loss = sums[0] / labels;
  report.penalty = sums[1] / labels;
  report.accuracy = sums[2] / labels;
  report.attended_pairs = sums[3];
  report.gradient_norm = gradient_norm(batch);
  if (rank_.watchdog && rank_.watchdog->due(batch.step)) {
    report.watchdog = rank_.watchdog->finish(rank_.ranks, rank_.communication, report.fallen);
  }
  if (statistics_) report.statistics = statistics_->finish();
  for (int64_t k = 0; k < modules; ++k) {
    const double* module = sums.data() + main_figures + k * module_figures;
    if (module[1] == 0) continue;  // no position has a label so far ahead: nothing was measured
    report.statistics.emplace_back(cat("mtp/loss_", k + 1), module[0] / labels);
    report.statistics.emplace_back(cat("mtp/agreement_", k + 1), module[2] / module[1]);
  }
  const auto routed = routing_.finish(statistics_.has_value());
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
