#include "launcher/loaded_model.h"

#include <filesystem>

#include "core/check.h"
#include "core/text.h"
#include "io/checkpoint.h"
#include "launcher/config.h"
#include "launcher/plan.h"
#include "launcher/saving.h"

namespace shoestring {
namespace {

// In the checkpoint's own run: the copy beside config.toml; else the path in the config.
std::string find_tokenizer(const std::string& checkpoint, const RunConfig& config) {
  namespace fs = std::filesystem;
  fs::path folder = fs::absolute(checkpoint);
  for (int up = 0; up < 3 && folder.has_relative_path(); ++up, folder = folder.parent_path()) {
    if (fs::exists(folder / "tokenizer.json")) return (folder / "tokenizer.json").string();
    if (!config.tokenizer.empty()) {
      const fs::path copy = folder / fs::path(config.tokenizer).filename();
      if (fs::is_regular_file(copy)) return copy.string();
    }
  }
  return fs::exists(config.tokenizer) ? config.tokenizer : "";
}

}  // namespace

LoadedModel::LoadedModel(const ModelRequest& request)
    : device(DeviceKind::cpu, 0, request.threads), stream(Stream::immediate(device)) {
  const Checkpoint checkpoint = Checkpoint::open(request.path);
  checkpoint_path = checkpoint.path();
  trained_hash = tokenizer_hash_of(checkpoint);
  config = parse_config<RunConfig>(checkpoint.config(), checkpoint.path() + ": config");
  step = checkpoint.step();
  const std::string dtype = request.dtype.empty() ? config.train.dtype : request.dtype;
  const Chunk chunk = whole_model(config.model);
  store = std::make_unique<ParamStore>(device, parameters_of(config.model, chunk),
                                       dtype_from_name(dtype));
  source = std::make_unique<StoreSource>(*store);
  model = std::make_unique<Transformer>(config.model, *store, chunk);
  restore_weights(*store, checkpoint, request.path);
  if (config.optim.ema_decay > 0) restore_average(*store, checkpoint);
  // Positions as the stage left them that the checkpoint was made in.
  if (!config.stages.empty()) {
    const BatchSchedule schedule(load_segments(config));
    model->set_rope(
        stage_effect(config, schedule.at(std::max<int64_t>(step - 1, 0)).first_token).rope);
  }
  tokenizer_path =
      request.tokenizer.empty() ? find_tokenizer(checkpoint.path(), config) : request.tokenizer;
  if (!tokenizer_path.empty()) tokenizer = Tokenizer::load(tokenizer_path);
}

const Tokenizer& LoadedModel::need_tokenizer() const {
  if (!tokenizer) {
    fail_usage("the model's folder holds no tokenizer; name one with --tokenizer PATH");
  }
  require_same_tokenizer({.checkpoint = checkpoint_path,
                          .trained = trained_hash,
                          .other = tokenizer_path,
                          .hash = tokenizer->hash(),
                          .remedy = "name the one it was trained with: --tokenizer PATH"});
  return *tokenizer;
}

}  // namespace shoestring
