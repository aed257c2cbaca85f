#include "launcher/saving.h"

#include "core/check.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/run_directory.h"
#include "launcher/same_run.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

std::string model_name(const Param& p) { return cat("model/", p.info.name); }
std::string model_name(const ModelState& s) { return cat("model/", s.name); }
std::string state_name(const StateTensor& s) { return cat("optim/", s.kind, "/", s.name); }

bool saves(const RankState& rank) {
  return rank.config.parallel.zero_stage > 0 || rank.ranks.rank() == 0;
}

std::vector<StateTensor> all_state(const RankState& rank) {
  std::vector<StateTensor> list = rank.optimizer->state();
  if (rank.ema) {
    for (StateTensor& s : rank.ema->state()) list.push_back(std::move(s));
  }
  return list;
}

// The masters that this rank owns: with sharded state, those it updates.
void add_masters(const RankState& rank, std::vector<TensorPiece>& pieces) {
  const std::byte* master = reinterpret_cast<const std::byte*>(rank.store->master().data());
  for (const Param& p : rank.store->params()) {
    for (FlatRange owned : rank.parallel->owned_ranges()) {
      const int64_t begin = std::max(owned.begin, p.offset) - p.offset;
      const int64_t end = std::min(owned.end, p.offset + p.elements) - p.offset;
      if (begin >= end) continue;
      pieces.push_back({.name = model_name(p),
                        .shape = p.info.shape,
                        .begin = begin,
                        .end = end,
                        .dtype = Dtype::f32,
                        .data = master + (p.offset + begin) * 4});
    }
  }
}

// What all ranks hold alike; rank 0 saves it.
void add_model_states(const RankState& rank, std::vector<TensorPiece>& pieces) {
  if (rank.ranks.rank() != 0) return;
  for (const ModelState& s : rank.store->states()) {
    pieces.push_back({.name = model_name(s),
                      .shape = s.values.shape(),
                      .begin = 0,
                      .end = s.values.elements(),
                      .dtype = Dtype::f32,
                      .data = s.values.raw()});
  }
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

void check_same_model(const ParamStore& store, const Checkpoint& checkpoint) {
  std::vector<std::pair<std::string, Shape>> wanted;
  for (const Param& p : store.params()) wanted.emplace_back(model_name(p), p.info.shape);
  for (const ModelState& s : store.states()) wanted.emplace_back(model_name(s), s.values.shape());
  const std::string difference = compare_tensors(checkpoint, wanted, "model/");
  if (!difference.empty()) {
    fail_data(cat(checkpoint.path(), " holds another model:\n", difference,
                  "\nuse the config that the checkpoint was made with, or another run.directory"));
  }
}

void restore_weights(ParamStore& store, const Checkpoint& checkpoint) {
  for (const Param& p : store.params()) {
    checkpoint.read(model_name(p), 0, p.elements, Dtype::f32, store.master(p).raw());
  }
  for (const ModelState& s : store.states()) {
    checkpoint.read(model_name(s), 0, s.values.elements(), Dtype::f32, s.values.raw());
  }
  store.refresh_compute(0, store.elements());
  store.raise_version();
}

}  // namespace

CheckpointContent content_of(const RankState& rank) {
  CheckpointContent content{
      .step = rank.step, .config = dump_config(rank.config), .state = facts_of(rank), .pieces = {}};
  if (!saves(rank)) return content;
  add_masters(rank, content.pieces);
  add_model_states(rank, content.pieces);
  for (const StateTensor& s : all_state(rank)) {
    content.pieces.push_back({.name = state_name(s),
                              .shape = rank.store->param(s.name).info.shape,
                              .begin = s.begin,
                              .end = s.end,
                              .dtype = s.values.dtype(),
                              .data = s.values.raw()});
  }
  return content;
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
    const std::string name = cat("optim/ema/", p.info.name);
    checkpoint.read(name, 0, p.elements, Dtype::f32, store.master(p).raw());
  }
  store.refresh_compute(0, store.elements());
  store.raise_version();
}

void restore(RankState& rank, const Checkpoint& checkpoint) {
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
  check_same_model(*rank.store, checkpoint);
  require_same_run(rank, checkpoint);
  const std::vector<StateTensor> state = all_state(rank);
  for (const StateTensor& s : state) {
    if (!checkpoint.has(state_name(s))) {
      fail_data(cat(checkpoint.path(), " has no ", state_name(s),
                    "; it was made with another optim section (optimizer, ema_decay)"));
    }
  }
  restore_weights(*rank.store, checkpoint);
  for (const StateTensor& s : state) {
    checkpoint.read(state_name(s), s.begin, s.end, s.values.dtype(), s.values.raw());
  }
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
