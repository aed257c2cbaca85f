#include "io/hugging_face/names.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/model/parameters.h"
#include "core/text.h"
#include "tests/io/hugging_face/config_fixture.h"

namespace shoestring {
namespace {

TEST(Names, CoverEveryParameterOnce) {
  for (const auto& [family, model] : small_models()) {
    std::map<std::string, int64_t> filled;
    std::set<std::string> names;
    for (const FolderTensor& t : folder_tensors(family, model)) {
      EXPECT_EQ(t.begin, filled[t.parameter]) << t.name;
      filled[t.parameter] += t.elements();
      EXPECT_TRUE(names.insert(t.name).second) << t.name << " twice";
    }
    for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
      EXPECT_EQ(filled[p.name], p.shape.elements()) << model_type_of(family) << " " << p.name;
      filled.erase(p.name);
    }
    for (const auto& [name, count] : filled) {
      EXPECT_TRUE(name.ends_with("moe.router.bias")) << name;
      EXPECT_EQ(count, model.moe.experts);
    }
    EXPECT_EQ(filled.empty(), !has_selection_bias(family));
    EXPECT_EQ(count_folder_tensors(model), static_cast<int64_t>(names.size()))
        << model_type_of(family);
  }
}

std::map<std::string, FolderTensor> by_name(ModelFamily family) {
  std::map<std::string, FolderTensor> map;
  for (FolderTensor& t : folder_tensors(family, small_models().at(family))) {
    std::string name = t.name;
    map[name] = std::move(t);
  }
  return map;
}

TEST(Names, AreThePublishedOnes) {
  const auto llama = by_name(ModelFamily::llama);
  const FolderTensor& k = llama.at("model.layers.1.self_attn.k_proj.weight");
  EXPECT_EQ(k.shape, (std::vector<int64_t>{16, 32}));
  EXPECT_EQ(k.parameter, "layers.1.attention.qkv.weight");
  EXPECT_EQ(k.begin, 32 * 32);
  EXPECT_TRUE(k.quantised);
  EXPECT_EQ(k.scale_name(), "model.layers.1.self_attn.k_proj.weight_scale_inv");
  EXPECT_FALSE(llama.at("lm_head.weight").quantised);
  EXPECT_TRUE(llama.contains("model.embed_tokens.weight"));
  EXPECT_TRUE(llama.contains("model.norm.weight"));
  const auto mixtral = by_name(ModelFamily::mixtral);
  const FolderTensor& up = mixtral.at("model.layers.0.block_sparse_moe.experts.3.w3.weight");
  EXPECT_EQ(up.begin, (3 * 2 * 48 + 48) * 32);
  EXPECT_EQ(up.parameter, "layers.0.moe.experts.gate_up.weight");
  EXPECT_TRUE(mixtral.contains("model.layers.1.block_sparse_moe.gate.weight"));
  const auto qwen2 = by_name(ModelFamily::qwen2);
  EXPECT_EQ(qwen2.at("model.layers.0.self_attn.v_proj.bias").begin, 32 + 16);
  EXPECT_FALSE(qwen2.contains("lm_head.weight"));
}

TEST(Names, OfDeepSeekReachThePredictionModule) {
  const auto v3 = by_name(ModelFamily::deepseek_v3);
  for (const char* name :
       {"model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.shared_experts.up_proj.weight",
        "model.layers.1.self_attn.kv_a_proj_with_mqa.weight", "model.layers.2.eh_proj.weight",
        "model.layers.1.self_attn.q_a_layernorm.weight", "model.layers.2.enorm.weight",
        "model.layers.2.shared_head.norm.weight", "model.layers.2.mlp.experts.7.gate_proj.weight",
        "model.layers.2.mlp.gate.e_score_correction_bias"}) {
    EXPECT_TRUE(v3.contains(name)) << name;
  }
  const FolderTensor& bias = v3.at("model.layers.1.mlp.gate.e_score_correction_bias");
  EXPECT_TRUE(bias.always_f32);
  EXPECT_EQ(bias.parameter, "layers.1.moe.router.bias");
  EXPECT_EQ(v3.at("model.layers.2.eh_proj.weight").parameter, "mtp.0.projection.weight");
  EXPECT_FALSE(v3.at("model.layers.2.eh_proj.weight").quantised);
  EXPECT_FALSE(by_name(ModelFamily::deepseek_v2)
                   .contains("model.layers.1.mlp.gate.e_score_correction_bias"));
}

TEST(Names, CopiesRepeatEmbeddingAndHead) {
  const auto tied = folder_copies(small_models().at(ModelFamily::qwen2));
  ASSERT_EQ(tied.size(), 1u);
  EXPECT_EQ(tied[0].name, "lm_head.weight");
  EXPECT_FALSE(tied[0].written);
  const auto module = folder_copies(small_models().at(ModelFamily::deepseek_v3));
  ASSERT_EQ(module.size(), 2u);
  EXPECT_EQ(module[0].name, "model.layers.2.embed_tokens.weight");
  EXPECT_EQ(module[1].parameter, "head.weight");
}

}  // namespace
}  // namespace shoestring
