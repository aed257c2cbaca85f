#include "launcher/kept_matrices.h"

#include <algorithm>

#include "core/fp8/layer.h"
#include "core/model/parameters.h"
#include "core/nearest_name.h"
#include "core/text.h"

namespace shoestring {
namespace {

// Names without the front that tells the block and without ".weight": "attention.qkv".
std::vector<std::string> names_of_block(const ModelConfig& model) {
  std::vector<std::string> names;
  for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
    if (!multiplies_in_fp8({}, p, model.layers)) continue;
    const size_t front = p.name.find('.', p.name.find('.') + 1) + 1;
    names.push_back(p.name.substr(front, p.name.rfind('.') - front));
  }
  return names;
}

// Of all families. Their sizes do not matter, only which matrices there are.
std::vector<std::string> names_of_families() {
  ModelConfig dense{.layers = 1, .hidden = 2, .ffn = 1, .heads = 1, .kv_heads = 1};
  dense.vocabulary = 1;
  ModelConfig latent = dense;
  latent.mla = {.kv_latent = 1, .q_latent = 1, .nope_dim = 1, .rope_dim = 2, .v_dim = 1};
  ModelConfig direct = latent;  // queries without a latent
  direct.mla.q_latent = 0;
  latent.moe.experts = latent.moe.chosen = latent.moe.ffn = latent.moe.shared = 1;
  latent.mtp.depth = 1;
  std::vector<std::string> all;
  for (const ModelConfig& model : {dense, latent, direct}) {
    for (std::string& name : names_of_block(model)) all.push_back(std::move(name));
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

// In "layers.3.attention.qkv.weight", the block being one of the model's.
bool stands_in_a_name(const std::string& part, const ModelConfig& model,
                      const std::vector<std::string>& names) {
  for (int64_t block = 0; block < std::max<int64_t>(1, model.layers + model.mtp.depth); ++block) {
    const std::string front = block_prefix(model, block);
    for (const std::string& name : names) {
      if (cat(front, name, ".weight").find(part) != std::string::npos) return true;
    }
  }
  return false;
}

// What a user may mean: whole names and each of their words.
std::vector<std::string> words_of(const std::vector<std::string>& names) {
  std::vector<std::string> words = names;
  for (const std::string& name : names) {
    size_t begin = 0;
    while (begin < name.size()) {
      const size_t end = std::min(name.find('.', begin), name.size());
      words.push_back(name.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return words;
}

}  // namespace

void check_kept_matrices(const PrecisionConfig& precision, const ModelConfig& model,
                         Complaints& complaints) {
  const std::vector<std::string> names = names_of_families();
  for (const std::string& part : precision.keep_bf16) {
    if (part.empty()) {
      complaints.add("precision.keep_bf16", "has an empty text in its list; leave it out");
      continue;
    }
    if (stands_in_a_name(part, model, names)) continue;
    const std::string nearest = nearest_name(part, words_of(names));
    std::string list;
    for (const std::string& name : names) append(list, list.empty() ? "" : ", ", name);
    complaints.add(
        "precision.keep_bf16",
        cat("\"", part, "\" stands in the name of no matrix that FP8 multiplies; ",
            nearest.empty() ? cat("there are ", list) : cat("did you mean \"", nearest, "\"?")));
  }
}

}  // namespace shoestring
