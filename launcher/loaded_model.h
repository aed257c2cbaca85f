#pragma once
// A model read from a PATH, ready to run forward: what generate, eval and logits share. PATH is a
// run's folder, its checkpoints folder, one checkpoint or a Hugging Face folder. Of a run with
// optim.ema_decay the average of the weights is read.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/transformer.h"
#include "io/tokenizer/tokenizer.h"
#include "launcher/model_source.h"

namespace shoestring {

struct ModelRequest {
  std::string path;
  std::string tokenizer = {};  // empty: the one in the model's folder
  std::string dtype = {};      // empty: the run's train.dtype, or the type of the folder's weights
  int threads = 0;             // 0: all cores
};

struct LoadedModel {
  explicit LoadedModel(const ModelRequest& request)
      : LoadedModel(request, ModelSource(request.path)) {}

  RunConfig config;  // of the run that made it; of a Hugging Face folder, its model and type
  int64_t step = 0;
  Device device;
  Stream stream;
  std::unique_ptr<ParamStore> store;
  std::unique_ptr<StoreSource> source;
  std::unique_ptr<Transformer> model;
  std::optional<Tokenizer> tokenizer;
  std::string tokenizer_path, tokenizer_error;  // why the model's own cannot be read
  std::string checkpoint_path, trained_hash;    // of the tokenizer that the model was trained with
  std::string home;                             // the run's folder, or the Hugging Face folder
  std::vector<int64_t> end_ids;                 // that a config.json names

  // The tokenizer; a usage error that says how to name one, a data error when it is not the one
  // that the model was trained with.
  const Tokenizer& need_tokenizer() const;

 private:
  LoadedModel(const ModelRequest& request, ModelSource from);
  void load_tokenizer(const ModelRequest& request, const ModelSource& from);
};

}  // namespace shoestring
