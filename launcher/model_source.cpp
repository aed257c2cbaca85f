#include "launcher/model_source.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "core/log.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "io/checkpoint_folder.h"
#include "io/tokenizer/tokenizer.h"
#include "launcher/config.h"
#include "launcher/plan.h"
#include "launcher/saving.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

// tokenizer.json; its folder where tokenizer_config.json beside it names the special tokens.
std::string tokenizer_in(const fs::path& folder) {
  if (!fs::exists(folder / "tokenizer.json")) return "";
  const bool with_config = fs::exists(folder / "tokenizer_config.json");
  return with_config ? folder.string() : (folder / "tokenizer.json").string();
}

// In the checkpoint's own run: the copy beside config.toml; else the path in the config.
std::string find_tokenizer(const std::string& checkpoint, const RunConfig& config) {
  fs::path folder = fs::absolute(checkpoint);
  for (int up = 0; up < 3 && folder.has_relative_path(); ++up, folder = folder.parent_path()) {
    const std::string here = tokenizer_in(folder);
    if (!here.empty()) return here;
    if (!config.tokenizer.empty()) {
      const fs::path copy = folder / fs::path(config.tokenizer).filename();
      if (fs::is_regular_file(copy)) return copy.string();
    }
  }
  return fs::exists(config.tokenizer) ? config.tokenizer : "";
}

RunConfig config_of(const HuggingFaceFolder& folder) {
  RunConfig config;
  config.model = folder.config().model;
  // f16 has more digits than bf16 holds.
  config.train.dtype = folder.config().dtype == Dtype::bf16 ? "bf16" : "f32";
  config.train.sequence_length = std::min<int64_t>(2048, config.model.max_positions);
  return config;
}

// States begin as zeros, so a source without one has nothing else to say.
bool is_state(const std::string& name) { return name.ends_with("moe.router.bias"); }

// One config of all that compute the same: what is said in two ways, or of parts that are off.
ModelConfig as_computed(ModelConfig model) {
  model.head_dim = model.mla.on() ? 0 : model.dim_of_head();
  if (model.mla.on()) model.kv_heads = model.heads;
  if (!has_sparse_layers(model)) model.moe = {};
  if (model.moe.groups_chosen == model.moe.groups) model.moe.groups = model.moe.groups_chosen = 1;
  return model;
}

// Weights of before or of after a training, and nothing says which are meant.
void require_one_model(const std::string& path) {
  if (CheckpointFolder(path + "/checkpoints").steps().empty()) return;
  fail_data(cat(path, " holds two models: a Hugging Face folder (config.json) and the checkpoints ",
                "of a run; name ", path, "/checkpoints for the run's, or move one of the two to a ",
                "folder of its own"));
}

}  // namespace

ModelSource::ModelSource(const std::string& path) : path_(path) {
  if (HuggingFaceFolder::is_at(path)) {
    require_one_model(path);
    folder_.emplace(path);
    for (const std::string& warning : folder_->config().warnings) log_warning(warning);
    config_ = config_of(*folder_);
    tokenizer_path_ = tokenizer_in(path);
    config_.tokenizer = tokenizer_path_;
    return;
  }
  checkpoint_.emplace(Checkpoint::open(path));
  path_ = checkpoint_->path();
  config_ = parse_config<RunConfig>(checkpoint_->config(), path_ + ": config");
  tokenizer_path_ = find_tokenizer(path_, config_);
}

std::string ModelSource::home() const {
  return folder_ ? path_ : fs::absolute(path_).parent_path().parent_path().string();
}

ModelConfig ModelSource::model() const {
  ModelConfig model = config_.model;
  if (!config_.stages.empty()) {
    const BatchSchedule schedule(load_segments(config_));
    const int64_t tokens = schedule.at(std::max<int64_t>(step() - 1, 0)).first_token;
    model.rope = stage_effect(config_, tokens).rope;
  }
  return model;
}

std::vector<std::string> ModelSource::fallen_matrices() const {
  if (!checkpoint_) return {};
  const auto facts = nlohmann::json::parse(checkpoint_->state(), nullptr, false);
  if (!facts.is_object() || !facts.contains("fp8_fallen")) return {};
  std::vector<std::string> names;
  for (const auto& name : facts["fp8_fallen"]) {
    if (name.is_string()) names.push_back(name.get<std::string>());
  }
  return names;
}

Fp8Origin ModelSource::fp8_origin() const {
  Fp8Origin origin;
  if (folder_) {
    const ModelConfig& model = config_.model;
    for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
      if (folder_->has_codes(p.name)) origin.parameters.insert(p.name);
    }
    if (!origin.parameters.empty()) origin.blocks = folder_->config().blocks;
    return origin;
  }
  const auto facts = nlohmann::json::parse(checkpoint_->state(), nullptr, false);
  if (!facts.is_object() || !facts.contains("fp8_codes")) return origin;
  try {
    facts.at("fp8_codes").get_to(origin.parameters);
    origin.blocks = {.rows = facts.at("fp8_blocks").at(0).get<int64_t>(),
                     .columns = facts.at("fp8_blocks").at(1).get<int64_t>()};
  } catch (const nlohmann::json::exception& error) {
    fail_data(
        cat(path_, ": the state does not say which FP8 blocks were imported: ", error.what()));
  }
  if (origin.blocks.rows < 1 || origin.blocks.columns < 1) {
    fail_data(cat(path_, ": the state tells of FP8 blocks of ", origin.blocks.rows, " x ",
                  origin.blocks.columns));
  }
  return origin;
}

std::string ModelSource::trained_hash() const {
  if (checkpoint_) return tokenizer_hash_of(*checkpoint_);
  if (tokenizer_path_.empty()) return "";
  try {
    return Tokenizer::load(tokenizer_path_).hash();
  } catch (const Error& error) {
    log_warning(cat("the tokenizer of ", path_, " cannot be read, so nothing can be compared ",
                    "with it: ", error.what()));
    return "";
  }
}

void ModelSource::prefer_average() { average_ = checkpoint_ && config_.optim.ema_decay > 0; }

std::string ModelSource::checkpoint_name(const std::string& name) const {
  const std::string average = cat("optim/ema/", name);
  return average_ && checkpoint_->has(average) ? average : cat("model/", name);
}

bool ModelSource::has(const std::string& name) const {
  return folder_ ? folder_->has(name) : checkpoint_->has(checkpoint_name(name));
}

Dtype ModelSource::stored_type(const std::string& name) const {
  if (!has(name)) return Dtype::f32;
  const Dtype stored = folder_ ? folder_->type_of(name) : checkpoint_->dtype(checkpoint_name(name));
  return stored == Dtype::bf16 ? Dtype::bf16 : Dtype::f32;
}

void ModelSource::read(const std::string& name, int64_t begin, int64_t end, Dtype to,
                       std::byte* out) const {
  if (is_state(name) && !has(name)) {
    std::memset(out, 0, static_cast<size_t>(end - begin) * size_of(to));
  } else if (folder_) {
    folder_->read(name, begin, end, to, out);
  } else {
    checkpoint_->read(checkpoint_name(name), begin, end, to, out);
  }
}

void ModelSource::read_part(const ParamInfo& part, Dtype to, std::byte* out) const {
  const BoxRange wanted{box_of(part), 0, part.shape.elements()};
  if (!folder_) return checkpoint_->read_box(checkpoint_name(part.name), wanted, to, out);
  const Shape& whole = whole_shape(part);
  const auto size = static_cast<int64_t>(size_of(to));
  for (const BoxRectangle& r : rectangles_of(whole, wanted)) {
    // Whole rows at once.
    const bool joined = r.columns == columns_of(whole);
    for (int64_t row = 0; row < (joined ? 1 : r.rows); ++row) {
      const int64_t begin = (r.row + row) * columns_of(whole) + r.column;
      const int64_t end = begin + (joined ? r.rows * r.columns : r.columns);
      folder_->read(part.name, begin, end, to, out + (r.at + row * r.stride) * size);
    }
  }
}

std::string ModelSource::mismatch(const std::vector<std::pair<std::string, Shape>>& wanted) const {
  if (checkpoint_) return compare_tensors(*checkpoint_, wanted, "model/");
  std::map<std::string, Shape> held;
  for (const ParamInfo& p : parameters_of(config_.model, whole_model(config_.model))) {
    held[cat("model/", p.name)] = p.shape;
  }
  std::vector<std::string> lines;
  for (const auto& [name, shape] : wanted) {
    if (is_state(name)) continue;
    const auto at = held.find(name);
    if (at == held.end()) {
      lines.push_back(cat(name, " ", shape.text(), " is missing in the folder"));
    } else if (at->second != shape) {
      lines.push_back(
          cat(name, " is ", at->second.text(), " in the folder but should be ", shape.text()));
    }
    held.erase(name);
  }
  for (const auto& [name, shape] : held) {
    lines.push_back(cat(name, " ", shape.text(), " is in the folder but not expected"));
  }
  return lines.empty() ? "" : listed(lines);
}

void ModelSource::restore(ParamStore& store, std::string_view remedy, const ModelConfig* model,
                          const FlatSpan<float>& masters, std::span<const FlatRange> owned) const {
  const std::string difference =
      mismatch(model != nullptr ? saved_tensors(*model) : saved_tensors(store));
  if (!difference.empty()) {
    fail_data(cat(path_, " holds another model:\n", difference, "\n", remedy));
  }
  for (const Param& p : store.params()) {
    std::vector<float> values(static_cast<size_t>(p.elements));
    read_part(p.info, Dtype::f32, reinterpret_cast<std::byte*>(values.data()));
    for (const FlatRange& range : owned) {
      const int64_t begin = std::max(range.begin, p.offset);
      const int64_t end = std::min(range.end, p.offset + p.elements);
      if (begin >= end) continue;
      std::copy_n(values.data() + begin - p.offset, end - begin, masters.at({begin, end}));
    }
  }
  for (const ModelState& s : store.states()) {
    read(s.name, 0, s.values.elements(), Dtype::f32, s.values.raw());
  }
}

void ModelSource::restore(ParamStore& store, std::string_view remedy,
                          const ModelConfig* model) const {
  const FlatRange all{0, store.elements()};
  restore(store, remedy, model, {store.master()}, {&all, 1});
  store.refresh_compute(0, store.elements());
  store.raise_version();
}

std::vector<std::string> other_uses_of_weights(const ModelConfig& there, const ModelConfig& here) {
  std::vector<std::string> lines;
  for (const ConfigDifference& d : diff_configs(as_computed(there), as_computed(here))) {
    const auto& skipped = {"init.", "lr_multipliers.", "moe.balance.", "moe.capacity",
                           "mtp.",  "max_positions",   "vocabulary"};
    const bool training = std::any_of(skipped.begin(), skipped.end(),
                                      [&](std::string_view s) { return d.key.starts_with(s); });
    if (!training)
      lines.push_back(cat("model.", d.key, ": ", d.left, " there, ", d.right, " here"));
  }
  return lines;
}

}  // namespace shoestring
