#include "launcher/same_run.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "launcher/config.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

constexpr size_t most_lines = 10;
constexpr int64_t most_looks = 4096;  // at a schedule

// The config that a checkpoint was saved with, and that of now.
struct Pair {
  RunConfig was, is;
  BatchSchedule schedule_was, schedule_is;
  int64_t steps;  // done
};

Pair pair_of(const RankState& rank, const Checkpoint& checkpoint) {
  auto was = parse_config<RunConfig>(checkpoint.config(), checkpoint.path() + ": config");
  BatchSchedule schedule(load_segments(was));
  return {std::move(was), rank.config, std::move(schedule), rank.loader->schedule(),
          checkpoint.step()};
}

nlohmann::json facts_in(const Checkpoint& checkpoint) {
  return nlohmann::json::parse(checkpoint.state(), nullptr, false);
}

void add_change(std::string& text, std::string_view key, std::string_view was,
                std::string_view is) {
  append(text, "\n  ", key, " was ", was, " and is ", is);
}

// The same numbers would mean another model, whatever the shapes of its tensors.
void compare_models(const Pair& p, std::string& text) {
  for (const ConfigDifference& d : diff_configs(p.was.model, p.is.model)) {
    const bool harmless = d.key.starts_with("init.") || d.key.starts_with("lr_multipliers.") ||
                          d.key == "max_positions" || d.key == "vocabulary" ||
                          d.key == "mtp.weight" ||  // the report lowers it late in the run
                          d.key == "moe.capacity" || d.key.starts_with("moe.balance.");
    if (!harmless) add_change(text, cat("model.", d.key), d.left, d.right);
  }
}

// Steps up to the one done where a schedule changes its shape.
std::vector<int64_t> borders_of(const Pair& p) {
  std::vector<int64_t> steps;
  for (const BatchSchedule* schedule : {&p.schedule_was, &p.schedule_is}) {
    for (const LoadSegment& s : schedule->segments()) {
      const int64_t step = schedule->steps_for_tokens(s.from_tokens);
      if (step < p.steps) steps.push_back(step);
    }
  }
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  return steps;
}

// Each source's share of the samples of a step.
std::vector<double> shares_at(const RunConfig& config, const BatchSchedule& schedule,
                              int64_t step) {
  std::vector<double> shares =
      schedule.segments()[static_cast<size_t>(schedule.at(step).segment)].weights;
  if (shares.empty()) {
    for (const SourceConfig& source : config.data.sources) shares.push_back(source.weight);
  }
  double sum = 0;
  for (double share : shares) sum += share;
  for (double& share : shares) share /= sum;
  return shares;
}

std::string text_of_shares(const std::vector<double>& shares) {
  std::string text = "[";
  for (double share : shares) append(text, text.size() > 1 ? ", " : "", share);
  return text + "]";
}

// Which of the sources the steps done have read; a share of 0 is one that is not there.
struct Shares {
  std::vector<bool> read;
  bool differ = false;
  int64_t step = 0;  // where they first differ
};
Shares shares_read(const Pair& p) {
  const size_t sources = std::max(p.was.data.sources.size(), p.is.data.sources.size());
  Shares result{.read = std::vector<bool>(sources, false)};
  for (int64_t step : borders_of(p)) {
    std::vector<double> was = shares_at(p.was, p.schedule_was, step);
    std::vector<double> is = shares_at(p.is, p.schedule_is, step);
    was.resize(sources, 0);
    is.resize(sources, 0);
    for (size_t i = 0; i < sources; ++i) {
      if (was[i] > 0) result.read[i] = true;
    }
    if (was == is || result.differ) continue;
    result.differ = true;
    result.step = step;
  }
  return result;
}

void compare_shapes(const Pair& p, const nlohmann::json& facts, std::string& text) {
  for (int64_t step : borders_of(p)) {
    const int64_t was = p.schedule_was.at(step).length, is = p.schedule_is.at(step).length;
    if (was == is) continue;
    add_change(text, cat("train.sequence_length (or that of stages) of step ", step + 1), cat(was),
               cat(is));
    break;
  }
  const int64_t here = p.schedule_is.at(p.steps).first_sample;
  const int64_t samples = facts.value("samples_done", here);
  if (samples != here) {
    append(text, "\n  ", counted(samples, "sequence"),
           " read so far, but with this batch it would be ", here,
           " (train.batch, stages, optim.ramp)");
  }
}

// Of a checkpoint without marks of its stores, the paths must be the same.
void compare_source(const Pair& p, size_t i, bool same_text, std::string& text) {
  const std::string key = cat("data.sources.", i);
  const SourceConfig& was = p.was.data.sources[i];
  const SourceConfig& is = p.is.data.sources[i];
  if (!same_text && was.path != is.path) {
    add_change(text, key + ".path", was.path, cat(is.path, ", which holds other text"));
  } else if (!same_text) {
    append(text, "\n  ", key, ".path: ", is.path, " holds other text than it did");
  }
  if (was.label() != is.label()) {  // the order of the text follows from it
    add_change(text, key + ".name", cat("\"", was.label(), "\""), cat("\"", is.label(), "\""));
  }
  const double held_was = was.held_out.value_or(p.was.data.held_out);
  const double held_is = is.held_out.value_or(p.is.data.held_out);
  if (held_was != held_is) {
    const bool own = was.held_out || is.held_out;
    add_change(text, own ? key + ".held_out" : std::string("data.held_out"), cat(held_was),
               cat(held_is));
  }
}

void compare_sources(const Pair& p, const nlohmann::json& facts,
                     const std::vector<std::string>& marks, std::string& text) {
  const Shares shares = shares_read(p);
  const auto& was = p.was.data.sources;
  const auto& is = p.is.data.sources;
  const auto saved = facts.value("stores", std::vector<std::string>());
  for (size_t i = 0; i < shares.read.size(); ++i) {
    if (!shares.read[i]) continue;
    if (i >= is.size()) {
      append(text, "\n  data.sources.", i, " (", was[i].label(), ") is gone");
      continue;
    }
    const bool same = i < saved.size() ? saved[i] == marks[i] : was[i].path == is[i].path;
    std::string complaint;
    compare_source(p, i, same, complaint);
    if (text.find(complaint) == std::string::npos) append(text, complaint);  // of a common key once
  }
  if (shares.differ) {
    add_change(
        text,
        cat("data.sources (weights, or those of stages), the shares of step ", shares.step + 1),
        text_of_shares(shares_at(p.was, p.schedule_was, shares.step)),
        text_of_shares(shares_at(p.is, p.schedule_is, shares.step)));
  }
  if (p.was.data.cross_document_attention != p.is.data.cross_document_attention) {
    auto word = [](bool on) { return on ? "true" : "false"; };
    add_change(text, "data.cross_document_attention", word(p.was.data.cross_document_attention),
               word(p.is.data.cross_document_attention));
  }
}

// The schedule's share of the learning rate, without optim.lr itself.
double factor_at(const RunConfig& config, const BatchSchedule& schedule, const SchedulePlan& plan,
                 int64_t step) {
  const int64_t tokens = schedule.at(step).first_token;
  return schedule_factor(config.optim.schedule, step, tokens, plan) *
         stage_effect(config, tokens).lr_multiplier;
}

std::string warning_of_schedule(const Pair& p) {
  const SchedulePlan was = schedule_plan(p.was, p.schedule_was);
  const SchedulePlan is = schedule_plan(p.is, p.schedule_is);
  const int64_t end = std::max(p.steps, std::min(p.was.train.steps, p.is.train.steps));
  const int64_t stride = end / most_looks + 1;
  bool done = false, to_come = false;
  for (int64_t step = 0; step < end; step += stride) {
    if (factor_at(p.was, p.schedule_was, was, step) == factor_at(p.is, p.schedule_is, is, step)) {
      continue;
    }
    (step < p.steps ? done : to_come) = true;
  }
  const ScheduleConfig& s = p.is.optim.schedule;
  const bool followed = s.total == 0 && p.was.optim.schedule.total == 0 && was.total != is.total;
  if (followed && (done || to_come)) {
    return cat(
        "optim.schedule.total = 0 follows train.steps, so the learning rate's schedule ends "
        "after ",
        is.total, " ", s.drive, " and no longer after ", was.total,
        ": the whole differs from one run without a break; set optim.schedule.total = ", was.total,
        " to keep the old course, and always when train.steps may grow");
  }
  if (!done) return "";
  return cat(
      "the learning rate's schedule (optim.schedule, stages) would have been another in the ",
      counted(p.steps, "step"),
      " done: the whole differs from one run without a break; put it back, "
      "with an explicit optim.schedule.total (it was ",
      was.total, " ", p.was.optim.schedule.drive, "), if that is not meant");
}

// The text is cut into blocks of the longest sequence, so another longest one orders it anew.
std::string warning_of_order(const Pair& p) {
  const int64_t was = longest_sequence(p.was), is = longest_sequence(p.is);
  if (was == is) return "";
  return cat("the longest sequence of the run (train.sequence_length, stages) was ", was,
             " and is ", is,
             " tokens: the text is put in a new order from here on, so that some "
             "of it may be read again before the rest was read once");
}

// The changes that somebody made, and the number of those that only follow from another
// precision.recipe: keys with what one preset fills in before and the other preset now.
std::pair<std::vector<ConfigDifference>, int64_t> without_following(
    const std::vector<ConfigDifference>& all, const Pair& p) {
  RunConfig was, is;
  was.precision.recipe = p.was.precision.recipe;
  is.precision.recipe = p.is.precision.recipe;
  fill_in(was);
  fill_in(is);
  const std::vector<ConfigDifference> presets = diff_configs(was, is);
  std::vector<ConfigDifference> made;
  int64_t following = 0;
  for (const ConfigDifference& d : all) {
    const bool follows =
        d.key != "precision.recipe" &&
        std::any_of(presets.begin(), presets.end(), [&](const auto& preset) {
          return preset.key == d.key && preset.left == d.left && preset.right == d.right;
        });
    if (follows) ++following;
    if (!follows) made.push_back(d);
  }
  return {std::move(made), following};
}

}  // namespace

void require_same_run(const RankState& rank, const Checkpoint& checkpoint) {
  const nlohmann::json facts = facts_in(checkpoint);
  const std::string hash = facts.value("tokenizer_hash", rank.tokenizer_hash);
  if (hash != rank.tokenizer_hash) {
    fail_data(cat("the run was trained on stores of tokenizer ", hash, " but data.sources now has ",
                  rank.tokenizer_hash, "; name the same stores or start in another run.directory"));
  }
  const Pair p = pair_of(rank, checkpoint);
  std::string text;
  compare_models(p, text);
  const int64_t seed = facts.value("seed", p.is.run.seed);
  if (seed != p.is.run.seed) add_change(text, "run.seed", cat(seed), cat(p.is.run.seed));
  if (p.was.optim.optimizer != p.is.optim.optimizer) {
    add_change(text, "optim.optimizer", p.was.optim.optimizer, p.is.optim.optimizer);
  }
  compare_shapes(p, facts, text);
  compare_sources(p, facts, rank.store_marks, text);
  if (!text.empty()) {
    fail_usage(cat("the run in ", checkpoint.path(), " cannot go on with this config:", text,
                   "\nput these back (stages can change what comes after step ", p.steps,
                   "), or begin a new run: set another run.directory, and train.init_from = \"",
                   checkpoint.path(), "\" if it is to begin with these weights"));
  }
  if (p.is.train.steps < p.steps) {
    fail_usage(cat("train.steps = ", p.is.train.steps, ", but the run in ", p.is.run.directory,
                   " has done ", counted(p.steps, "step"), "; set train.steps to ", p.steps,
                   " or more, or begin a new run in another run.directory"));
  }
}

ResumeChanges changes_since(const RankState& rank, const Checkpoint& checkpoint) {
  const Pair p = pair_of(rank, checkpoint);
  ResumeChanges changes;
  const std::vector<ConfigDifference> differences = diff_configs(p.was, p.is);
  const auto [all, following] = without_following(differences, p);
  for (const ConfigDifference& d : all) {
    if (changes.lines.size() == most_lines) {
      changes.lines.back() =
          cat("changed: ", all.size() - most_lines + 1,
              " more keys; compare config.toml with the config of ", checkpoint.path());
      break;
    }
    auto known = [](const std::string& value) { return value.empty() ? "nothing" : value; };
    changes.lines.push_back(cat("changed after step ", p.steps, ": ", d.key, ": ", known(d.left),
                                " -> ", known(d.right)));
  }
  if (following > 0) {
    changes.lines.push_back(
        cat("changed with precision.recipe: ", counted(following, "key", "keys"), " that it sets"));
  }
  for (std::string warning : {warning_of_schedule(p), warning_of_order(p)}) {
    if (!warning.empty()) changes.warnings.push_back(std::move(warning));
  }
  return changes;
}

}  // namespace shoestring
