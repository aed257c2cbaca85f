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

// Its matrices' names with sizes that do not matter.
ModelConfig smallest(ModelConfig m) {
  m.hidden = m.head_dim = 2;
  m.vocabulary = m.ffn = m.heads = m.kv_heads = 1;
  if (m.mla.on()) {
    const int64_t query = m.mla.q_latent > 0 ? 1 : 0;
    m.mla = {.kv_latent = 1, .q_latent = query, .nope_dim = 1, .rope_dim = 2, .v_dim = 1};
  }
  if (m.moe.on()) m.moe.experts = m.moe.chosen = m.moe.ffn = 1;
  m.moe.shared = std::min<int64_t>(m.moe.shared, 1);
  return m;
}

// Whether a matrix that the recipe names is `wanted`, of a block or, with `modules`, of the
// prediction modules. Block by block: a list of all names of a large model would be long.
template <class F>
bool any_matrix(const Fp8Recipe& recipe, const ModelConfig& model, bool modules, F wanted) {
  const ModelConfig small = smallest(model);
  const auto found = [&](const Chunk& chunk) {
    const std::vector<ParamInfo> parameters = parameters_of(small, chunk);
    return std::any_of(parameters.begin(), parameters.end(), [&](const ParamInfo& p) {
      return multiplies_in_fp8(recipe, p, model.layers) && wanted(p.name);
    });
  };
  for (int64_t i = recipe.first_layers; i < model.layers - recipe.last_layers; ++i) {
    if (found({.first_block = i, .last_block = i + 1, .embedding = false, .head = false})) {
      return true;
    }
  }
  return modules && found({.first_block = 0, .last_block = 0, .embedding = false, .head = true});
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

bool is_part_of_router(const std::string& part) {
  const bool named = part.find("router") != std::string::npos;
  return named && std::string_view("moe.router.weight").find(part) != std::string_view::npos;
}

bool any_block_in_fp8(const PrecisionConfig& precision, const ModelConfig& model) {
  return any_matrix(resolve(precision), model, false, [](const std::string&) { return true; });
}

bool keeps_a_matrix(const std::string& part, const PrecisionConfig& precision,
                    const ModelConfig& model) {
  Fp8Recipe recipe = resolve(precision);
  recipe.keep_bf16.clear();
  return any_matrix(recipe, model, true,
                    [&](const std::string& name) { return name.find(part) != std::string::npos; });
}

void check_kept_matrices(const PrecisionConfig& precision, const ModelConfig& model,
                         Complaints& complaints) {
  const std::vector<std::string> names = names_of_families();
  for (const std::string& part : precision.keep_bf16) {
    if (part.empty()) {
      complaints.add("precision.keep_bf16", "has an empty text in its list; leave it out");
      continue;
    }
    if (is_part_of_router(part) || stands_in_a_name(part, model, names)) continue;
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
