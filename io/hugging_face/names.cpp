#include "io/hugging_face/names.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "core/check.h"
#include "core/model/parameters.h"
#include "core/text.h"

namespace shoestring {
namespace {

// A parameter of a block and the tensors that it is made of, one after the other; * is the number
// of the expert, and the list begins again with each.
struct Row {
  std::string_view ours;
  std::array<std::string_view, 3> theirs;
  bool quantised = false;
};
constexpr std::array<Row, 26> rows = {
    {{"attention_norm.gain", {"input_layernorm.weight"}},
     {"attention.qkv.weight",
      {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"},
      true},
     {"attention.qkv.bias",
      {"self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"}},
     {"attention.q_norm.gain", {"self_attn.q_norm.weight"}},
     {"attention.k_norm.gain", {"self_attn.k_norm.weight"}},
     {"attention.q_down.weight", {"self_attn.q_a_proj.weight"}, true},
     {"attention.q_latent_norm.gain", {"self_attn.q_a_layernorm.weight"}},
     {"attention.q_up.weight", {"self_attn.q_b_proj.weight"}, true},
     {"attention.q.weight", {"self_attn.q_proj.weight"}, true},
     {"attention.kv_down.weight", {"self_attn.kv_a_proj_with_mqa.weight"}, true},
     {"attention.kv_latent_norm.gain", {"self_attn.kv_a_layernorm.weight"}},
     {"attention.kv_up.weight", {"self_attn.kv_b_proj.weight"}, true},
     {"attention.output.weight", {"self_attn.o_proj.weight"}, true},
     {"mlp_norm.gain", {"post_attention_layernorm.weight"}},
     {"mlp.gate_up.weight", {"mlp.gate_proj.weight", "mlp.up_proj.weight"}, true},
     {"mlp.down.weight", {"mlp.down_proj.weight"}, true},
     {"moe.router.weight", {"mlp.gate.weight"}},
     {"moe.router.bias", {"mlp.gate.e_score_correction_bias"}},
     {"moe.experts.gate_up.weight",
      {"mlp.experts.*.gate_proj.weight", "mlp.experts.*.up_proj.weight"},
      true},
     {"moe.experts.down.weight", {"mlp.experts.*.down_proj.weight"}, true},
     {"moe.shared.gate_up.weight",
      {"mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight"},
      true},
     {"moe.shared.down.weight", {"mlp.shared_experts.down_proj.weight"}, true},
     // Of a prediction module.
     {"hidden_norm.gain", {"hnorm.weight"}},
     {"embedding_norm.gain", {"enorm.weight"}},
     {"projection.weight", {"eh_proj.weight"}},
     {"final_norm.gain", {"shared_head.norm.weight"}}}};

// Mixtral's words for the same things.
constexpr std::array<Row, 3> mixtral_rows = {
    {{"moe.router.weight", {"block_sparse_moe.gate.weight"}},
     {"moe.experts.gate_up.weight",
      {"block_sparse_moe.experts.*.w1.weight", "block_sparse_moe.experts.*.w3.weight"},
      true},
     {"moe.experts.down.weight", {"block_sparse_moe.experts.*.w2.weight"}, true}}};

const Row& row_of(ModelFamily family, std::string_view ours) {
  auto is = [&](const Row& row) { return row.ours == ours; };
  if (family == ModelFamily::mixtral) {
    const auto at = std::find_if(mixtral_rows.begin(), mixtral_rows.end(), is);
    if (at != mixtral_rows.end()) return *at;
  }
  const auto at = std::find_if(rows.begin(), rows.end(), is);
  if (at == rows.end()) fail(cat("a parameter without a name in Hugging Face files: ", ours));
  return *at;
}

std::string with_number(std::string_view name, int64_t number) {
  const size_t star = name.find('*');
  if (star == std::string_view::npos) return std::string(name);
  return cat(name.substr(0, star), number, name.substr(star + 1));
}

// "layers.3." or "mtp.0." in front of a block's parameter, and the block's number.
struct Place {
  size_t prefix = 0;
  int64_t block = 0;
};
std::optional<Place> place_of(std::string_view name, const ModelConfig& m) {
  for (const auto& [head, first] : {std::pair<std::string_view, int64_t>{"layers.", 0},
                                    std::pair<std::string_view, int64_t>{"mtp.", m.layers}}) {
    if (!name.starts_with(head)) continue;
    int64_t number = 0;
    size_t at = head.size();
    for (; at < name.size() && name[at] != '.'; ++at) number = number * 10 + (name[at] - '0');
    return Place{.prefix = at + 1, .block = first + number};
  }
  return std::nullopt;
}

class Lister {
 public:
  Lister(ModelFamily family, const ModelConfig& model) : family_(family), m_(model) {}

  void add(const ParamInfo& info) {
    const std::optional<Place> place = place_of(info.name, m_);
    if (!place) return add_whole(info);
    const std::string_view ours = std::string_view(info.name).substr(place->prefix);
    const std::string at = cat("model.layers.", place->block, ".");
    add_parts(info, row_of(family_, ours), at);
    if (ours == "moe.router.weight" && has_selection_bias(family_)) {
      const ParamInfo bias{.name = selection_bias_name(m_, place->block),
                           .shape = {m_.moe.experts}};
      add_parts(bias, row_of(family_, "moe.router.bias"), at);
      list_.back().always_f32 = true;
    }
  }
  std::vector<FolderTensor> take() { return std::move(list_); }

 private:
  void add_whole(const ParamInfo& info) {
    const std::string name = info.name == "embedding.weight" ? "model.embed_tokens.weight"
                             : info.name == "head.weight"    ? "lm_head.weight"
                                                             : "model.norm.weight";
    list_.push_back({.name = name, .shape = shape_of(info), .parameter = info.name});
  }
  static std::vector<int64_t> shape_of(const ParamInfo& info) {
    return {info.shape.dims().begin(), info.shape.dims().end()};
  }
  std::vector<int64_t> parts_of(const ParamInfo& info) const {
    if (!info.parts.empty()) return info.parts;
    if (!info.name.ends_with("qkv.bias")) return {info.shape[0]};
    const int64_t kv = m_.kv_heads * m_.dim_of_head();
    return {m_.heads * m_.dim_of_head(), kv, kv};
  }
  void add_parts(const ParamInfo& info, const Row& row, const std::string& at) {
    const auto count = static_cast<size_t>(std::count_if(
        row.theirs.begin(), row.theirs.end(), [](std::string_view name) { return !name.empty(); }));
    const std::vector<int64_t> parts = parts_of(info);
    int64_t begin = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      std::vector<int64_t> shape = shape_of(info);
      shape[0] = parts[i];
      const auto number = static_cast<int64_t>(i / count);
      list_.push_back({.name = at + with_number(row.theirs.at(i % count), number),
                       .shape = std::move(shape),
                       .parameter = info.name,
                       .begin = begin,
                       .quantised = row.quantised});
      begin += list_.back().elements();
    }
  }

  ModelFamily family_;
  const ModelConfig& m_;
  std::vector<FolderTensor> list_;
};

}  // namespace

int64_t FolderTensor::elements() const {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

bool has_selection_bias(ModelFamily family) { return family == ModelFamily::deepseek_v3; }

std::string selection_bias_name(const ModelConfig& model, int64_t block) {
  return cat(block_prefix(model, block), "moe.router.bias");
}

std::vector<FolderTensor> folder_tensors(ModelFamily family, const ModelConfig& model) {
  Lister lister(family, model);
  for (const ParamInfo& info : parameters_of(model, whole_model(model))) lister.add(info);
  return lister.take();
}

std::vector<FolderTensor> empty_tensors(ModelFamily family, const ModelConfig& model) {
  std::vector<FolderTensor> list;
  if (!is_deepseek(family) || !model.moe.on() || model.moe.shared > 0) return list;
  for (int64_t i = 0; i < model.layers + model.mtp.depth; ++i) {
    if (!model.moe.sparse(std::min(i, model.layers - 1))) continue;
    const std::string at = cat("model.layers.", i, ".mlp.shared_experts.");
    list.push_back({.name = at + "gate_proj.weight", .shape = {0, model.hidden}, .parameter = ""});
    list.push_back({.name = at + "up_proj.weight", .shape = {0, model.hidden}, .parameter = ""});
    list.push_back({.name = at + "down_proj.weight", .shape = {model.hidden, 0}, .parameter = ""});
  }
  return list;
}

std::vector<FolderCopy> folder_copies(const ModelConfig& model) {
  std::vector<FolderCopy> list;
  const char* head = model.tied_embeddings ? "embedding.weight" : "head.weight";
  if (model.tied_embeddings) list.push_back({.name = "lm_head.weight", .parameter = head});
  for (int64_t k = 0; k < model.mtp.depth; ++k) {
    const std::string at = cat("model.layers.", model.layers + k, ".");
    list.push_back(
        {.name = at + "embed_tokens.weight", .parameter = "embedding.weight", .written = true});
    list.push_back({.name = at + "shared_head.head.weight", .parameter = head, .written = true});
  }
  return list;
}

int64_t count_folder_tensors(const ModelConfig& m) {
  const int64_t blocks = m.layers + m.mtp.depth;
  int64_t count = (m.tied_embeddings ? 2 : 3) + 4 * m.mtp.depth;
  const int64_t attention =
      m.mla.on() ? (m.mla.q_latent > 0 ? 7 : 5) : 4 + (m.qkv_bias ? 3 : 0) + (m.qk_norm ? 2 : 0);
  for (int64_t i = 0; i < blocks; ++i) {
    const bool sparse = m.moe.sparse(std::min(i, m.layers - 1));
    const int64_t router = m.moe.scores == "sigmoid" ? 2 : 1;
    count += 2 + attention;
    count += sparse ? router + 3 * m.moe.experts + (m.moe.shared > 0 ? 3 : 0) : 3;
  }
  return count;
}

}  // namespace shoestring
