#include "launcher/rank_state.h"

#include <algorithm>
#include <filesystem>

#include "core/check.h"
#include "core/counted.h"
#include "core/instruction_set.h"
#include "core/log.h"
#include "core/product_check.h"
#include "core/text.h"
#include "io/digest.h"
#include "launcher/memory_forecast.h"
#include "launcher/mesh_layout.h"
#include "launcher/piece_costs.h"
#include "parallel/comm/rank_failure.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

// Embedding rows are rounded up so that products have even tiles and shards are equal.
constexpr int64_t vocabulary_multiple = 64;

ModelStagesOptions stage_options(RankState& rank) {
  const TrainSection& t = rank.config.train;
  return {.recompute = recompute_from_name(t.recompute),
          .fp8 = rank.fp8.get(),
          .exact = t.exact,
          .z_loss = t.z_loss,
          .loads = rank.config.model.moe.balance.global_batch > 0 ? &rank.loads : nullptr,
          .host = rank.config.offload.activations ? rank.host.get() : nullptr,
          .copies = rank.copies.get()};
}

// Returns how many ids the stores may hold.
int64_t fill_in_vocabulary(RunConfig& config, const TokenStores& stores) {
  int64_t needed = 0;
  for (const auto& store : stores) needed = std::max(needed, store->facts().vocabulary);
  if (config.model.vocabulary == 0) {
    config.model.vocabulary =
        (needed + vocabulary_multiple - 1) / vocabulary_multiple * vocabulary_multiple;
  }
  for (const auto& store : stores) require_vocabulary(*store, config.model.vocabulary);
  return needed;
}

// A sample must fit when it is asked for, not when it is due.
void check_sample(const RunConfig& config, const Tokenizer& tokenizer) {
  const TrainSection& t = config.train;
  if (t.sample_every == 0) return;
  const auto prompt = static_cast<int64_t>(tokenizer.encode(t.sample_prompt).size());
  if (prompt <= config.model.max_positions - t.sample_tokens) return;
  fail_usage(cat("train.sample_prompt has ", counted(prompt, "token"),
                 " and train.sample_tokens = ", t.sample_tokens,
                 " are wanted, but model.max_positions = ", config.model.max_positions,
                 "; shorten the sample or raise the latter"));
}

// A store may be moved between two starts of a run, but not replaced: its sizes and a thousand of
// its documents' hashes tell, in a time that does not grow with it.
std::string mark_of(const TokenStore& store) {
  const int64_t documents = store.documents(), looks = std::min<int64_t>(documents, 1000);
  std::string text = cat(store.tokens(), " tokens, ", documents, " documents");
  for (int64_t i = 0; i < looks; ++i) {
    const int64_t d = i * (documents / looks);
    append(text, " ", store.document_start(d), ":", store.document_hash(d));
  }
  return cat(store.tokens(), " tokens, ", documents, " documents, ", digest_of(text));
}

struct Inputs {
  std::optional<Tokenizer> tokenizer;
  std::string tokenizer_hash;
  std::vector<std::string> store_marks;
  int64_t token_ids = 0;
  std::unique_ptr<Loader> loader;
  SchedulePlan schedule;
};

void require_input(const std::string& key, const std::string& path, std::string_view command) {
  if (std::filesystem::exists(path)) return;
  fail_data(
      cat(key, " = \"", path, "\": there is no ", std::filesystem::absolute(path).string(),
          " (a path is relative to the current folder, not to the config's); make it with\n  ",
          path.find(".cache/quickstart/") == std::string::npos ? command : "launcher/quickstart",
          path.find(".cache/quickstart/") == std::string::npos
              ? ""
              : ", which downloads the novels and packs them before it trains (it may be stopped "
                "then)"));
}

void require_inputs(const RunConfig& config) {
  for (size_t i = 0; i < config.data.sources.size(); ++i) {
    const std::string& path = config.data.sources[i].path;
    require_input(cat("data.sources[", i, "].path"), path,
                  cat("shoestring data pack --tokenizer ",
                      config.tokenizer.empty() ? "TOKENIZER" : config.tokenizer, " --out ",
                      path.empty() ? "STORE" : path, " TEXT..."));
  }
  if (config.tokenizer.empty()) return;
  require_input("tokenizer", config.tokenizer,
                cat("shoestring data train-tokenizer --out ", config.tokenizer, " TEXT..."));
}

// `machine` names all ranks.
void require_memory_here(const RunConfig& config, MachineShare machine) {
  machine.world = machine.ranks;
  machine.ranks = static_cast<int>(mesh_of(config, machine.ranks).dp());
  machine.memory_bytes = memory_of_machine();
  require_memory(config, load_segments(config), machine);
}

// Whatever can be wrong between config, stores, tokenizer and machine is found here.
Inputs open_inputs(RunConfig& config, const MachineShare& machine) {
  fill_in(config);
  Complaints complaints;
  config.validate_data(complaints);
  for (const auto& item : complaints.items()) fail_usage(cat(item.key, " ", item.message));
  require_inputs(config);
  TokenStores stores = open_sources(config.data);
  Inputs inputs;
  inputs.tokenizer_hash = stores[0]->facts().tokenizer_hash;
  if (!config.tokenizer.empty()) {
    inputs.tokenizer = Tokenizer::load(config.tokenizer);
    for (const auto& s : stores) require_tokenizer(*s, inputs.tokenizer->hash(), config.tokenizer);
    check_sample(config, *inputs.tokenizer);
  }
  for (const auto& store : stores) inputs.store_marks.push_back(mark_of(*store));
  inputs.token_ids = fill_in_vocabulary(config, stores);
  require_layout(config, machine.ranks, load_segments(config));
  require_memory_here(config, machine);
  inputs.loader = std::make_unique<Loader>(config.data, std::move(stores), load_segments(config),
                                           static_cast<uint64_t>(config.run.seed));
  inputs.loader->schedule().at(config.train.steps);  // the tokens of the run can be counted
  inputs.schedule = schedule_plan(config, inputs.loader->schedule());
  return inputs;
}

// A text packed as one document has nothing to hold out: said before hours pass without a figure.
void warn_of_no_validation(const RunConfig& config, const Loader& loader) {
  if (config.train.evaluate_sequences == 0) return;
  bool wanted = false;
  for (size_t i = 0; i < config.data.sources.size(); ++i) {
    wanted |= config.data.sources[i].held_out.value_or(config.data.held_out) > 0;
    if (loader.eval_rows(static_cast<int64_t>(i), config.train.sequence_length) > 0) return;
  }
  if (!wanted) return;
  log_warning(cat("there will be no validation: of the documents in data.sources none is held out ",
                  "(data.held_out = ", config.data.held_out,
                  "); pack the text as more documents (`shoestring data pack --split ",
                  "blank-lines`, or --separator) or raise data.held_out"));
}

}  // namespace

void require_exact_products(const RunConfig& config, const std::function<bool()>& independent) {
  if (!config.train.exact || independent()) return;
  fail(cat("train.exact: products on this processor (", instruction_set(),
           ") depend on how many rows they have; set train.exact = false"),
       no_place);
}

DataParallelConfig sharing_of(const RunConfig& config) {
  return {.bucket_bytes = static_cast<int64_t>(config.parallel.bucket_mb * 1e6),
          .zero_stage = config.parallel.zero_stage,
          .exact = config.train.exact};
}

void check_inputs(const RunConfig& config, int ranks) {
  RunConfig filled_in = config;
  open_inputs(filled_in, {.ranks = ranks, .ranks_here = ranks});
}

RunConfig with_vocabulary(RunConfig config) {
  fill_in(config);
  if (config.model.vocabulary > 0) return config;
  require_inputs(config);
  fill_in_vocabulary(config, open_sources(config.data));
  return config;
}

RankState::RankState(const RunConfig& run, Communicator& communicator, int threads, int ranks_here)
    : config(run),
      ranks(communicator),
      device(DeviceKind::cpu, 0, threads),
      compute(Stream::immediate(device)),
      communication(communicator.size() > 1 ? Stream::worker(device, "communication")
                                            : Stream::immediate(device)),
      guard(run.optim.skip) {
  const MachineShare machine{.ranks = ranks.size(), .ranks_here = ranks_here, .threads = threads};
  Inputs inputs = open_inputs(config, machine);
  // Elsewhere: what the check takes is no part of the run's memory.
  require_exact_products(config, [&] {
    Device aside(DeviceKind::cpu, 0, threads);
    return products_are_row_independent(aside, true);
  });
  tokenizer = std::move(inputs.tokenizer);
  if (tokenizer) token_bytes = bytes_of_tokens(*tokenizer);
  tokenizer_hash = std::move(inputs.tokenizer_hash);
  store_marks = std::move(inputs.store_marks);
  token_ids = inputs.token_ids;
  loader = std::move(inputs.loader);
  if (ranks.rank() == 0) {
    warn_of_no_validation(config, *loader);
    if (const std::string text = warning_of_moments(run); !text.empty()) log_warning(text);
  }
  schedule = inputs.schedule;
  if (split_is_open(config)) {
    split_by_cost();
    require_memory_here(config, machine);
  }
  const OffloadSection& offload = config.offload;
  if (offload.activations || offload.optimizer) {
    host = std::make_unique<Device>(DeviceKind::cpu, 0, threads);
  }
  if (offload.activations) copies = std::make_unique<Stream>(Stream::worker(device, "offload"));
  const Dtype compute_type = dtype_from_name(config.train.dtype);
  part = std::make_unique<ModelPart>(config.model, part_config_of(config, ranks.size()), ranks,
                                     device);
  store = std::make_unique<ParamStore>(
      device, part->parameters(), compute_type,
      memory_of_stage(config.parallel.zero_stage, compute_type, offload.optimizer));
  if (config.precision.on()) {
    fp8 = std::make_unique<Fp8Plan>(resolve(config.precision), *store, config.model.layers);
    watchdog = std::make_unique<Fp8Watchdog>(config.precision.watchdog, config.model, *fp8);
  }
  gradients = std::make_unique<StepGradients>(
      *part, *store, compute,
      StepGradients::Config{
          .sharing = sharing_of(config),
          .whole = [this](const Param& p) { return updated_by_muon(p.info, config.optim); },
          .host = offload.optimizer ? host.get() : nullptr});
  mesh = std::make_unique<MeshStep>(*part, *store, *gradients, compute, stage_options(*this));
  mesh->reserve_positions(longest_sequence(config));
  norm = std::make_unique<GradientNorm>(*part, *store, *gradients);
  const std::vector<FlatRange> owned = gradients->owned_ranges();
  optimizer = std::make_unique<Optimizer>(state_device(), store->params(), config.optim, owned,
                                          static_cast<uint64_t>(config.run.seed));
  gradients->shards().initialise(static_cast<uint64_t>(config.run.seed));
  start_average();
}

// One rank measures for all: others would find other times.
void RankState::split_by_cost() {
  std::vector<double> blocks(static_cast<size_t>(pipeline_stages(config)));
  if (ranks.rank() == 0) {
    require_memory_to_measure(config, device.threads(), memory_of_machine());
    const PieceTimes times = measure_pieces(config, device.threads());
    if (const std::string text = text_of_noise(times); !text.empty()) log_warning(text);
    const PieceCosts costs = costs_of(config.model, times);
    config.pipeline.layers = balanced_split(costs, static_cast<int>(blocks.size()));
    split_text = text_of_split(costs, config.pipeline.layers);
    std::copy(config.pipeline.layers.begin(), config.pipeline.layers.end(), blocks.begin());
  }
  ranks.broadcast(buffer_of(std::span(blocks)), 0, communication);
  const Awaiting waits("costs of the pieces");
  communication.synchronize();
  config.pipeline.layers.assign(blocks.begin(), blocks.end());
  config.pipeline.split = "even";  // what is saved names the blocks, and nothing beside them
}

double RankState::seconds() const {
  return seconds_before +
         std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
}

double RankState::lr_at(int64_t at) const {
  const int64_t tokens = loader->schedule().at(at).first_token;
  return learning_rate(config.optim, at, tokens, schedule) * stage_at(at).lr_multiplier;
}

StageEffect RankState::stage_at(int64_t at) const {
  return stage_effect(config, loader->schedule().at(at).first_token);
}

Evaluator RankState::evaluator() {
  return {.run = [this](const MicroBatch& micro) { return mesh->evaluate(micro).main; },
          .stream = compute,
          .ranks = &ranks,
          .share = part->data_rank(),
          .shares = part->data_ranks(),
          .tells = mesh->gives_evaluation() && part->tells_losses(),
          .company = part->experts() != nullptr || gradients->gathers_weights(),
          .counts_text = part->tells_sequences(),
          .bytes = &token_bytes};
}

void RankState::refresh_copies() {
  ParamShards& shards = gradients->shards();
  shards.refresh_copies();
  if (config.optim.stochastic_rounding && updates > 0) {
    optimizer->refresh_copies(
        {.step = updates, .master = shards.master(), .copy = shards.copies()});
  }
  publish_weights();
}

void RankState::start_average() {
  if (config.optim.ema_decay <= 0) return;
  const std::vector<FlatRange> owned = gradients->owned_ranges();
  ema = std::make_unique<WeightAverage>(state_device(), store->params(), owned,
                                        read_only(gradients->shards().master()),
                                        config.optim.ema_decay);
}

void RankState::publish_weights() {
  store->raise_version();
  enter_phase("gathering of the weights", step + 1);
  const Awaiting waits("weights of all ranks");
  gradients->gather_parameters();
}

}  // namespace shoestring
