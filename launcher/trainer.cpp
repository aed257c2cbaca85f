#include "launcher/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/check.h"
#include "core/counted.h"
#include "core/log.h"
#include "core/text.h"
#include "io/checkpoint_folder.h"
#include "launcher/config.h"
#include "launcher/finite_state.h"
#include "launcher/generator.h"
#include "launcher/model_source.h"
#include "launcher/resume_point.h"
#include "launcher/run_directory.h"
#include "launcher/same_run.h"
#include "launcher/saving.h"
#include "launcher/whole_model.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Two processes in one directory would replace each other's files.
std::optional<DurableFile> take_directory(const RankState& rank) {
  if (rank.ranks.rank() != 0) return std::nullopt;
  const RunDirectory directory(rank.config.run.directory);
  directory.create();
  std::optional<DurableFile> lock;
  lock.emplace(directory.path() + "/lock", DurableFile::Mode::keep);
  if (!lock->lock()) {
    fail_usage(cat("another process trains in ", directory.path(),
                   "; wait for its end or set another run.directory"));
  }
  return lock;
}

}  // namespace

Trainer::Trainer(RankState& rank, RunTrace& trace, const CoreShare& machine)
    : rank_(rank),
      trace_(trace),
      machine_(machine),
      stop_(rank.ranks, rank.communication),
      lock_(take_directory(rank)),
      runner_(rank, trace),
      writer_(checkpoint_options(rank)),
      reporter_(rank) {}

// The resolved config and a copy of the tokenizer make the run readable without the rest of the
// disk. Only after the checkpoint was found to fit: a mistaken start leaves the run as it was.
void Trainer::keep_inputs() const {
  if (rank_.ranks.rank() != 0) return;
  namespace fs = std::filesystem;
  const RunConfig& config = rank_.config;
  const RunDirectory directory(config.run.directory);
  directory.write_text("config.toml", dump_config(config, true));
  if (config.tokenizer.empty()) return;
  auto keep = [&](const fs::path& from, const fs::path& name) {
    const fs::path to = fs::path(directory.path()) / name;
    std::error_code error;
    if (fs::equivalent(from, to, error)) return;
    fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
    if (error) fail_data(cat(to.string(), ": the tokenizer cannot be copied: ", error.message()));
  };
  const fs::path from = config.tokenizer;
  if (fs::is_directory(from)) {
    keep(from / "tokenizer.json", "tokenizer.json");
    // It names the tokens that begin and end texts.
    if (fs::exists(from / "tokenizer_config.json")) {
      keep(from / "tokenizer_config.json", "tokenizer_config.json");
    }
  } else {  // the name that every reader looks for
    keep(from, from.extension() == ".json" ? "tokenizer.json" : from.filename());
  }
}

void Trainer::begin() {
  const std::string directory = RunDirectory(rank_.config.run.directory).checkpoints();
  auto warn = [](const std::string& text) { log_warning(text); };
  if (auto checkpoint = find_resume_point(rank_.ranks, rank_.communication, directory, warn)) {
    restore(rank_, *checkpoint);
    saved_step_ = rank_.step;
    writer_.resumed_from(rank_.step);
    tell_changes(*checkpoint);
  } else if (!rank_.config.train.init_from.empty()) {
    begin_from(rank_.config.train.init_from);
  }
  apply_stage(std::max<int64_t>(rank_.step - 1, 0));  // of the step that something may be owed to
  keep_inputs();
  reporter_.begin(machine_);
}

void Trainer::begin_from(const std::string& path) {
  const ModelSource first(path);
  require_same_tokenizer({.checkpoint = first.path(),
                          .trained = first.trained_hash(),
                          .other = cat("that of ", rank_.config.data.sources[0].path),
                          .hash = rank_.tokenizer_hash,
                          .remedy = "pack the text with the tokenizer of train.init_from, or "
                                    "begin without those weights"});
  first.restore(*rank_.store,
                cat("train.init_from = \"", path,
                    "\" needs the model section that those weights belong to; set that, or begin "
                    "with the weights of another model"),
                &rank_.config.model, rank_.gradients->shards().master(),
                rank_.gradients->owned_ranges());
  rank_.refresh_copies();
  rank_.start_average();
  if (rank_.ranks.rank() != 0) return;
  for (const std::string& line : other_uses_of_weights(first.model(), rank_.config.model)) {
    log_warning(cat(path, " was trained with another ", line));
  }
}

void Trainer::tell_changes(const Checkpoint& checkpoint) {
  if (rank_.ranks.rank() != 0) return;
  const ResumeChanges changes = changes_since(rank_, checkpoint);
  for (const std::string& text : changes.lines) reporter_.line(text);
  for (const std::string& text : changes.warnings) log_warning(text);
}

// Positions stretch when a stage says so; the other effects of a stage are functions of the step.
void Trainer::apply_stage(int64_t step) {
  if (rank_.config.stages.empty()) return;
  const StageEffect now = rank_.stage_at(step);
  const RopeConfig rope = rank_.mesh->rope();
  if (now.rope.scaling != rope.scaling || now.rope.theta != rope.theta ||
      now.rope.factor != rope.factor) {
    rank_.mesh->set_rope(now.rope);
    reporter_.line(cat("stage: rope ", now.rope.scaling, ", theta ", now.rope.theta, ", factor ",
                       now.rope.factor, " from step ", step + 1, " on"));
  }
}

// One line where the shape of the batches, the mixture or the learning rate's factor changes.
void Trainer::announce_stage(int64_t step) {
  if (step == 0 || rank_.ranks.rank() != 0) return;
  const BatchSchedule& schedule = rank_.loader->schedule();
  const StepShape was = schedule.at(step - 1), is = schedule.at(step);
  if (was.segment == is.segment) return;
  const StageEffect before = rank_.stage_at(step - 1), now = rank_.stage_at(step);
  std::string text = cat("stage: from step ", step + 1, " on batches of ",
                         counted(is.samples(), "sequence"), " of ", is.length, " tokens");
  if (before.lr_multiplier != now.lr_multiplier) {
    append(text, ", learning rate times ", now.lr_multiplier);
  }
  if (before.mtp_weight != now.mtp_weight) {
    append(text, ", weight of the prediction losses ", now.mtp_weight);
  }
  if (before.bias_speed != now.bias_speed) {
    append(text, ", speed of the selection biases ", now.bias_speed);
  }
  const auto weights = [&](const StepShape& shape) {
    return schedule.segments()[static_cast<size_t>(shape.segment)].weights;
  };
  if (weights(was) != weights(is)) append(text, ", another mixture of the sources");
  reporter_.line(text);
}

// The batch of the current step was made while the previous one was computed.
Batch Trainer::next_batch() {
  auto make = [loader = rank_.loader.get(), rank = rank_.part->data_rank(),
               size = rank_.part->data_ranks()](int64_t step) {
    MadeBatch made{.batch = {}, .begin = Clock::now(), .end = {}};
    made.batch = loader->batch(step, rank, size);
    made.end = Clock::now();
    return made;
  };
  MadeBatch made = prefetched_.valid() ? prefetched_.get() : make(rank_.step);
  if (made.batch.step != rank_.step) made = make(rank_.step);
  if (rank_.step + 1 < rank_.config.train.steps) {
    prefetched_ = std::async(std::launch::async, make, rank_.step + 1);
  }
  if (TraceWriter* trace = trace_.writer()) {
    const double begin = trace->at(made.begin);
    if (begin >= 0) {  // a batch made before the traced steps is not shown
      trace->event(trace_.rank(), "data thread", "make batch", begin, trace->at(made.end));
    }
  }
  return std::move(made.batch);
}

void Trainer::trace_at(int64_t step) {
  const std::string path = RunDirectory(rank_.config.run.directory).trace();
  if (trace_.at_step(step, rank_.ranks, path)) {
    reporter_.line(
        cat("trace of steps ", trace_.range().first, " to ", trace_.range().last, " in ", path));
  }
}

bool Trainer::do_step() {
  trace_at(rank_.step + 1);
  apply_stage(rank_.step);
  announce_stage(rank_.step);
  const Clock::time_point start = Clock::now();
  TraceWriter* trace = trace_.writer();
  const double traced = trace ? trace->now() : 0;
  const Batch batch = next_batch();
  const double data_seconds = seconds_since(start);
  if (trace) trace->event(trace_.rank(), "data", "wait for batch", traced, trace->now());
  const StepReport report = runner_.run(batch, [this] { return stop_.between(); });
  if (report.abandoned) return false;
  const auto pieces = static_cast<double>(std::max<size_t>(batch.micro.size(), 1));
  stop_.pace(report.compute_seconds / pieces);
  rank_.owed = due();
  reporter_.step(report, batch, data_seconds, seconds_since(start));
  return true;
}

// A step that fails (its data is damaged) has updated nothing: the steps before it are kept. Among
// several ranks the others may be anywhere; their last checkpoint counts. So it does where the
// weights lead to a loss that is not finite: saved, they would do so at every start.
bool Trainer::do_step_or_keep() {
  const int64_t before = rank_.step;
  try {
    return do_step();
  } catch (const StepNotFinite& error) {
    fail(cat(error.what(), ". ", remedy_of(rank_, step_on_disk())), no_place);
  } catch (const Error&) {
    const bool alone = rank_.ranks.size() == 1;
    if (alone && before > 0 && rank_.step == before && text_of_bad_state(rank_).empty()) {
      save_if_due(true);
      writer_.finish();
    }
    throw;
  }
}

// Where the next start goes on; -1: at the beginning. A save may still be under way, or fail.
int64_t Trainer::step_on_disk() {
  if (writer_.settled()) return saved_step_;
  const auto steps =
      CheckpointFolder(RunDirectory(rank_.config.run.directory).checkpoints()).steps();
  const auto end = std::lower_bound(steps.begin(), steps.end(), saved_step_);
  return end == steps.begin() ? -1 : *std::prev(end);
}

// What a run that is to stop leaves out is owed: the checkpoint says so.
void Trainer::after_step() {
  evaluate_if_owed();
  sample_if_owed();
  reporter_.record();
}

void Trainer::save_if_due(bool last) {
  const int64_t every = rank_.config.checkpoint.every;
  const bool due = last || (every > 0 && rank_.step % every == 0);
  if (!due) return;
  if (saved_step_ == rank_.step) {
    // This step's save may have failed in the background, and there may be room now.
    if (!last || !any_rank(rank_.ranks, rank_.communication, !writer_.settled())) return;
  }
  require_finite_state(rank_, step_on_disk());
  reporter_.sync();
  CheckpointContent content = content_of(rank_);
  content.last = last;
  content.proven = proven_step_ == rank_.step;
  writer_.save(content);
  saved_step_ = rank_.step;
}

RankState::Owed Trainer::due() const {
  const TrainSection& t = rank_.config.train;
  const bool last = rank_.step == t.steps;
  auto at = [&](int64_t every) { return every > 0 && (last || rank_.step % every == 0); };
  return {.evaluation = last || at(t.evaluate_every),
          .sample = at(t.sample_every) && !rank_.config.tokenizer.empty()};
}

// The average, where there is one, stands in for the weights while they are judged.
void Trainer::with_average(const std::function<void()>& judge) {
  if (!rank_.ema) return judge();
  ParamShards& shards = rank_.gradients->shards();
  rank_.ema->swap(shards.master());
  shards.refresh_copies();
  rank_.publish_weights();
  judge();
  rank_.ema->swap(shards.master());
  rank_.refresh_copies();
}

// Rank 0 generates, the others keep asking with it whether to stop.
void Trainer::sample_if_owed() {
  if (!rank_.owed.sample || stop_.stopped()) return;
  with_average([this] {
    const std::unique_ptr<WholeModel> whole = whole_model_on_first(rank_);
    if (rank_.ranks.rank() == 0) {
      sample(*whole);
    } else {
      stop_.follow();
    }
  });
  rank_.owed.sample = stop_.stopped();
}

void Trainer::sample(WholeModel& whole) {
  const TrainSection& t = rank_.config.train;
  const GenerateRequest request{.prompts = {t.sample_prompt},
                                .max_tokens = t.sample_tokens,
                                .sampler = {.temperature = t.sample_temperature,
                                            .seed = static_cast<uint64_t>(rank_.config.run.seed)},
                                .stop = {},
                                .stop_early = [this] { return stop_.lead(); }};
  const std::string text =
      generate(rank_.compute, whole.model(), whole.source(), *rank_.tokenizer, request).texts[0];
  stop_.lead_done();
  if (!stop_.stopped()) reporter_.sample(t.sample_prompt, text);
}

std::vector<SourceLoss> Trainer::evaluate() {
  const TrainSection& t = rank_.config.train;
  const StepShape shape = rank_.loader->schedule().at(std::max<int64_t>(rank_.step - 1, 0));
  Evaluator who = rank_.evaluator();
  who.stop = [this] { return stop_.between(); };
  std::vector<SourceLoss> losses;
  with_average([&] {
    losses =
        evaluate_sources(who, *rank_.loader, {t.evaluate_sequences, shape.sequences, shape.length});
  });
  return losses;
}

// The same on all ranks. Of the weights themselves it tells only where there is no average of them.
void Trainer::require_finite(const std::vector<SourceLoss>& losses) {
  for (const SourceLoss& source : losses) {
    if (std::isfinite(source.sums.loss)) continue;
    require_finite_state(rank_, step_on_disk());
    fail(cat("the validation loss of ", source.name, " after step ", rank_.step,
             " is not finite: ", source.sums.loss, ". ", remedy_of(rank_, step_on_disk())),
         no_place);
  }
  if (!losses.empty() && !rank_.ema) proven_step_ = rank_.step;
}

void Trainer::evaluate_if_owed() {
  if (!rank_.owed.evaluation || stop_.stopped()) return;
  const Clock::time_point start = Clock::now();
  std::vector<SourceLoss> losses = evaluate();
  rank_.owed.evaluation = stop_.stopped();
  if (stop_.stopped()) return;
  require_finite(losses);
  reporter_.evaluation(losses, seconds_since(start));
  if (rank_.step == rank_.config.train.steps) final_losses_ = std::move(losses);
}

bool Trainer::run(const std::function<void()>& begun) {
  begin();
  if (begun) begun();
  const int64_t steps = rank_.config.train.steps;
  if (rank_.step >= steps) rank_.owed.evaluation = true;  // a finished run, started again
  if (!stop_.now()) after_step();
  while (rank_.step < steps && !stop_.now()) {
    if (!do_step_or_keep()) break;
    after_step();
    if (rank_.step < steps && !stop_.stopped()) save_if_due(false);
  }
  if (prefetched_.valid()) prefetched_.wait();
  trace_at(trace_.range().last + 1);
  save_if_due(true);
  writer_.finish();
  if (stop_.stopped()) {
    reporter_.line(cat("stopped by a signal after step ", rank_.step,
                       "; the state is saved: start the same command again to go on"));
    return false;
  }
  reporter_.finish(final_losses_, writer_.stats());
  return true;
}

}  // namespace shoestring
