#include "launcher/saving.h"

#include "core/check.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/run_directory.h"
#include "launcher/same_run.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

std::vector<StateTensor> all_state(const RankState& rank) {
  std::vector<StateTensor> list = rank.optimizer->state();
  if (rank.ema) {
    for (StateTensor& s : rank.ema->state()) list.push_back(std::move(s));
  }
  return list;
}

std::string facts_of(const RankState& rank) {
  nlohmann::json facts = {{"step", rank.step},
                          {"updates", rank.updates},
                          {"seconds", rank.seconds()},
                          {"evaluation_owed", rank.owed.evaluation},
                          {"sample_owed", rank.owed.sample},
                          {"guard", rank.guard.state()},
                          {"tokenizer_hash", rank.tokenizer_hash},
                          {"stores", rank.store_marks},
                          {"seed", rank.config.run.seed},
                          {"samples_done", rank.loader->schedule().at(rank.step).first_sample}};
  Fp8Watchdog::State state = rank.watchdog ? rank.watchdog->state() : Fp8Watchdog::State();
  const Fp8Watchdog::State& rest = rank.watchdog_rest;
  state.fallen.insert(state.fallen.end(), rest.fallen.begin(), rest.fallen.end());
  state.strikes.insert(state.strikes.end(), rest.strikes.begin(), rest.strikes.end());
  if (rank.watchdog || !state.fallen.empty() || !state.strikes.empty()) {
    facts["fp8_fallen"] = state.fallen;
    facts["fp8_strikes"] = state.strikes;
  }
  return facts.dump();
}

void check_same_model(const ModelConfig& model, const Checkpoint& checkpoint) {
  const std::string difference = compare_tensors(checkpoint, saved_tensors(model), "model/");
  if (!difference.empty()) {
    fail_data(cat(checkpoint.path(), " holds another model:\n", difference,
                  "\nuse the config that the checkpoint was made with, or another run.directory"));
  }
}

}  // namespace

SavedShare share_of(const RankState& rank) {
  const ModelPart& part = *rank.part;
  SavedShare share;
  for (const StepGradients::Owned& group : rank.gradients->owned_by_group()) {
    share.owned.push_back({.ranges = group.ranges, .replica = group.rank});
  }
  std::set<std::string> of_earlier_stages;
  if (part.embedding_sharing() == SharedBy::ends && part.place()[MeshAxis::pp] > 0) {
    of_earlier_stages.insert("embedding.weight");
  }
  const int tp = part.place()[MeshAxis::tp], ranks = part.mesh().extent(MeshAxis::tp);
  if (tp > 0 || !of_earlier_stages.empty()) {
    share.earlier = EarlierHolders(part.model(), tp, ranks, std::move(of_earlier_stages));
  }
  share.writes_state = [first = part.statistics().rank() == 0](const std::string&) {
    return first;
  };
  return share;
}

CheckpointContent content_of(const RankState& rank, const SavedShare& share) {
  return {
      .step = rank.step,
      .config = dump_config(rank.config),
      .state = facts_of(rank),
      .pieces = pieces_of(*rank.store, rank.gradients->shards().master(), all_state(rank), share),
      .expected = saved_tensors(rank.config.model, rank.config.optim)};
}

CheckpointOptions checkpoint_options(const RankState& rank) {
  const CheckpointSection& c = rank.config.checkpoint;
  return {.directory = RunDirectory(rank.config.run.directory).checkpoints(),
          .rank = rank.ranks.rank(),
          .ranks = rank.ranks.size(),
          .keep = c.keep,
          .keep_every = c.keep_every,
          .background = c.background,
          .memory_limit_bytes = static_cast<int64_t>(c.memory_limit_gb * 1e9),
          .deadline_seconds = c.deadline,
          .ledger = &rank.compute.device().ledger()};
}

std::string tokenizer_hash_of(const Checkpoint& checkpoint) {
  const auto facts = nlohmann::json::parse(checkpoint.state(), nullptr, false);
  const bool told =
      facts.is_object() && facts.contains("tokenizer_hash") && facts["tokenizer_hash"].is_string();
  return told ? facts["tokenizer_hash"].get<std::string>() : "";
}

void require_same_tokenizer(const TokenizerPair& pair) {
  if (pair.trained.empty() || pair.trained == pair.hash) return;
  fail_data(cat(pair.checkpoint, " was trained with the tokenizer ", pair.trained, ", but ",
                pair.other, " is ", pair.hash, "; ", pair.remedy));
}

void restore_average(ParamStore& store, const Checkpoint& checkpoint) {
  for (const Param& p : store.params()) {
    checkpoint.read_box(cat("optim/ema/", p.info.name), {box_of(p.info), 0, p.elements}, Dtype::f32,
                        store.master(p).raw());
  }
  store.refresh_compute(0, store.elements());
  store.raise_version();
}

void restore(RankState& rank, const Checkpoint& checkpoint, const SavedShare& share) {
  const auto facts = nlohmann::json::parse(checkpoint.state(), nullptr, false);
  if (!facts.is_object() || !facts.contains("updates")) {
    const std::string& path = checkpoint.path();
    if (facts.is_object() && facts.contains("imported_from")) {
      fail_data(cat(path, " holds imported weights without the state of a training run, which ",
                    "cannot go on from there; to begin a run with them set train.init_from = \"",
                    rank.config.run.directory, "\" and another run.directory"));
    }
    fail_data(cat(path, ": its facts are not those of a training run; set another run.directory"));
  }
  check_same_model(rank.config.model, checkpoint);
  require_same_run(rank, checkpoint);
  const std::vector<StateTensor> state = all_state(rank);
  for (const StateTensor& s : state) {
    if (!checkpoint.has(checkpoint_name(s))) {
      fail_data(cat(checkpoint.path(), " has no ", checkpoint_name(s),
                    "; it was made with another optim section (optimizer, ema_decay)"));
    }
  }
  restore_pieces(*rank.store, rank.gradients->shards().master(), state, share, checkpoint);
  rank.step = checkpoint.step();
  rank.updates = facts.at("updates").get<int64_t>();
  rank.refresh_copies();
  rank.seconds_before = facts.at("seconds").get<double>();
  rank.owed.evaluation = facts.value("evaluation_owed", false);
  rank.owed.sample = facts.value("sample_owed", false);
  rank.watchdog_rest = {facts.value("fp8_fallen", std::vector<std::string>()),
                        facts.value("fp8_strikes", std::vector<std::pair<std::string, int64_t>>())};
  if (rank.watchdog) rank.watchdog_rest = rank.watchdog->restore(rank.watchdog_rest);
  rank.guard.restore(facts.at("guard").get<std::vector<double>>());
}

}  // namespace shoestring
