#include "launcher/loaded_model.h"

#include "core/check.h"
#include "core/text.h"
#include "launcher/saving.h"

namespace shoestring {

LoadedModel::LoadedModel(const ModelRequest& request, ModelSource from)
    : config(from.config()),
      step(from.step()),
      device(DeviceKind::cpu, 0, request.threads),
      stream(Stream::immediate(device)),
      checkpoint_path(from.path()),
      home(from.home()) {
  if (from.folder()) end_ids = from.folder()->config().end_ids;
  const std::string dtype = request.dtype.empty() ? config.train.dtype : request.dtype;
  const Chunk chunk = whole_model(config.model);
  store = std::make_unique<ParamStore>(device, parameters_of(config.model, chunk),
                                       dtype_from_name(dtype));
  source = std::make_unique<StoreSource>(*store);
  model = std::make_unique<Transformer>(from.model(), *store, chunk);
  from.prefer_average();
  from.restore(*store, "it was made with another version of this program");
  load_tokenizer(request, from);
}

// A tokenizer that cannot be read keeps nobody from using the model with ids.
void LoadedModel::load_tokenizer(const ModelRequest& request, const ModelSource& from) {
  tokenizer_path = request.tokenizer.empty() ? from.tokenizer_path() : request.tokenizer;
  if (!request.tokenizer.empty() || !from.folder()) trained_hash = from.trained_hash();
  if (tokenizer_path.empty()) return;
  if (!request.tokenizer.empty()) {
    tokenizer = Tokenizer::load(tokenizer_path);
    return;
  }
  try {
    tokenizer = Tokenizer::load(tokenizer_path);
  } catch (const Error& error) {
    if (!from.folder()) throw;
    tokenizer_error = error.what();
  }
}

const Tokenizer& LoadedModel::need_tokenizer() const {
  if (!tokenizer && !tokenizer_error.empty()) {
    fail_data(cat("the model's own tokenizer cannot be read: ", tokenizer_error,
                  "; name another one with --tokenizer PATH"));
  }
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
