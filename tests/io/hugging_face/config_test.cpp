#include "io/hugging_face/config.h"

#include <gtest/gtest.h>

#include "tests/io/hugging_face/config_fixture.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

using nlohmann::json;

void refuse(const json& base, const json& changes, const std::vector<std::string>& parts) {
  json changed = base;
  changed.update(changes);
  std::vector<std::string> all = parts;
  all.push_back("config.json");
  expect_error(ExitCode::data, all, [&] { parse_json(changed); });
}

TEST(HuggingFaceConfig, ReadsLlama) {
  const HuggingFaceConfig c = parse_json(llama_json());
  EXPECT_EQ(c.family, ModelFamily::llama);
  EXPECT_EQ(c.model.layers, 2);
  EXPECT_EQ(c.model.hidden, 32);
  EXPECT_EQ(c.model.ffn, 48);
  EXPECT_EQ(c.model.dim_of_head(), 8);
  EXPECT_EQ(c.model.kv_heads, 2);
  EXPECT_EQ(c.model.vocabulary, 96);
  EXPECT_EQ(c.model.max_positions, 64);
  EXPECT_DOUBLE_EQ(c.model.norm_epsilon, 1e-5);
  EXPECT_DOUBLE_EQ(c.model.rope.theta, 1e4);
  EXPECT_FALSE(c.model.tied_embeddings || c.model.qkv_bias || c.model.qk_norm);
  EXPECT_EQ(c.dtype, Dtype::bf16);
  EXPECT_FALSE(c.blocks.on());
}

TEST(HuggingFaceConfig, FillsInWhatTheClassesFillIn) {
  json plain = llama_json();
  for (const char* key : {"num_key_value_heads", "rms_norm_eps", "torch_dtype"}) plain.erase(key);
  const HuggingFaceConfig c = parse_json(plain);
  EXPECT_EQ(c.model.kv_heads, 4);
  EXPECT_DOUBLE_EQ(c.model.norm_epsilon, 1e-6);
  EXPECT_EQ(c.dtype, Dtype::f32);
  plain["model_type"] = "qwen3";
  EXPECT_EQ(parse_json(plain).model.head_dim, 128);
  plain["model_type"] = "mixtral";
  plain["num_key_value_heads"] = 2;
  plain["num_local_experts"] = 4;
  plain["num_experts_per_tok"] = 2;
  const HuggingFaceConfig mixtral = parse_json(plain);
  EXPECT_DOUBLE_EQ(mixtral.model.norm_epsilon, 1e-5);
  EXPECT_DOUBLE_EQ(mixtral.model.rope.theta, 1e6);
  EXPECT_EQ(mixtral.model.moe.ffn, 48);
  EXPECT_TRUE(mixtral.model.moe.renormalise);
}

TEST(HuggingFaceConfig, KnowsTheFamilyByTypeOrArchitecture) {
  json c = llama_json();
  c["model_type"] = "something_like_llama";
  EXPECT_EQ(parse_json(c).family, ModelFamily::llama);
  refuse(llama_json(), {{"model_type", "gpt2"}, {"architectures", json::array({"GPT2LMHead"})}},
         {"\"model_type\" is \"gpt2\"", "deepseek_v3"});
  refuse(llama_json(), {{"model_type", nullptr}, {"architectures", nullptr}}, {"model_type"});
}

TEST(HuggingFaceConfig, ReadsTypesAndIds) {
  json c = llama_json();
  c["dtype"] = "float32";  // wins
  c["bos_token_id"] = 7;
  c["eos_token_id"] = json::array({1, 2});
  const HuggingFaceConfig read = parse_json(c);
  EXPECT_EQ(read.dtype, Dtype::f32);
  EXPECT_EQ(read.begin_ids, std::vector<int64_t>{7});
  EXPECT_EQ(read.end_ids, (std::vector<int64_t>{1, 2}));
  refuse(llama_json(), {{"dtype", "int8"}}, {"\"dtype\" is \"int8\""});
}

TEST(HuggingFaceConfig, ReadsWindows) {
  json c = llama_json();
  c["model_type"] = "mistral";
  EXPECT_EQ(parse_json(c).model.window, 4096);  // the class's default
  c["sliding_window"] = nullptr;
  EXPECT_EQ(parse_json(c).model.window, 0);
  c["sliding_window"] = 16;
  EXPECT_EQ(parse_json(c).model.window, 16);
  c["model_type"] = "qwen2";
  EXPECT_EQ(parse_json(c).model.window, 0);  // not used
  c["use_sliding_window"] = true;
  EXPECT_EQ(parse_json(c).model.window, 0);  // from layer 28 on
  c["max_window_layers"] = 0;
  EXPECT_EQ(parse_json(c).model.window, 16);
  refuse(c, {{"max_window_layers", 1}}, {"max_window_layers"});
  refuse(c, {{"layer_types", {"full_attention", "sliding_attention"}}}, {"layer_types"});
}

TEST(HuggingFaceConfig, ReadsDeepSeek) {
  json c = deepseek_json("deepseek_v3");
  c["num_nextn_predict_layers"] = 1;
  c["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 64}}};
  const HuggingFaceConfig v3 = parse_json(c);
  EXPECT_EQ(v3.model.mla.kv_latent, 16);
  EXPECT_EQ(v3.model.mla.q_latent, 12);
  EXPECT_EQ(v3.model.kv_heads, 4);
  EXPECT_EQ(v3.model.moe.scores, "sigmoid");
  EXPECT_EQ(v3.model.moe.group_score, "top2");
  EXPECT_EQ(v3.model.moe.groups, 4);
  EXPECT_TRUE(v3.model.moe.renormalise);
  EXPECT_DOUBLE_EQ(v3.model.moe.scaling, 2.5);
  EXPECT_EQ(v3.model.mtp.depth, 1);
  EXPECT_EQ(v3.blocks.rows, 128);
  EXPECT_EQ(v3.blocks.columns, 64);
  json v2_json = deepseek_json("deepseek_v2");
  v2_json["topk_method"] = "group_limited_greedy";
  v2_json["q_lora_rank"] = nullptr;
  const HuggingFaceConfig v2 = parse_json(v2_json);
  EXPECT_EQ(v2.model.mla.q_latent, 0);
  EXPECT_EQ(v2.model.moe.group_score, "max");
  EXPECT_EQ(v2.model.moe.groups_chosen, 2);
  EXPECT_FALSE(v2.model.moe.renormalise);
  v2_json["topk_method"] = "greedy";
  EXPECT_EQ(parse_json(v2_json).model.moe.groups, 1);
  // Null is none to DeepSeek's code; a missing key is what the class fills in.
  v2_json["n_shared_experts"] = c["n_shared_experts"] = nullptr;
  EXPECT_EQ(parse_json(v2_json).model.moe.shared, 0);
  EXPECT_EQ(parse_json(c).model.moe.shared, 0);
  v2_json.erase("n_shared_experts");
  EXPECT_EQ(parse_json(v2_json).model.moe.shared, 2);
}

TEST(HuggingFaceConfig, CountsPredictionModulesByEitherName) {
  json c = deepseek_json("deepseek_v3");
  EXPECT_EQ(parse_json(c).model.mtp.depth, 1) << "the class's default";
  c["num_mtp_layers"] = 3;
  EXPECT_EQ(parse_json(c).model.mtp.depth, 3);
  c["num_nextn_predict_layers"] = 0;
  EXPECT_EQ(parse_json(c).model.mtp.depth, 0) << "the older name wins in transformers 5.23";
  refuse(deepseek_json("deepseek_v3"), {{"num_mtp_layers", 65}}, {"\"num_mtp_layers\" is 65"});
  EXPECT_EQ(parse_json(deepseek_json("deepseek_v2")).model.mtp.depth, 0);
}

// Experts that begin after the last layer need not make sense.
TEST(HuggingFaceConfig, ReadsModelsWithoutSparseLayersAsDense) {
  for (const char* type : {"deepseek_v2", "deepseek_v3"}) {
    json c = deepseek_json(type);
    c["first_k_dense_replace"] = 1;
    EXPECT_TRUE(parse_json(c).model.moe.on());
    for (const int64_t first : {2, 3}) {
      c["first_k_dense_replace"] = first;
      EXPECT_FALSE(parse_json(c).model.moe.on());
    }
  }
}

TEST(HuggingFaceConfig, TakesEitherNameOfTheExpertsCount) {
  json c = llama_json();
  c["model_type"] = "qwen3_moe";
  c["moe_intermediate_size"] = 16;
  c["num_experts_per_tok"] = 2;
  c["num_local_experts"] = 8;
  EXPECT_EQ(parse_json(c).model.moe.experts, 8);
  c["num_experts"] = 16;
  EXPECT_EQ(parse_json(c).model.moe.experts, 8);
  c["mlp_only_layers"] = {1, 0};
  EXPECT_EQ(parse_json(c).model.moe.first_dense, 2);
  refuse(c, {{"mlp_only_layers", {1}}}, {"mlp_only_layers"});
}

TEST(HuggingFaceConfig, RefusesWhatIsNotComputedHere) {
  const json llama = llama_json(), v3 = deepseek_json("deepseek_v3");
  refuse(llama, {{"hidden_act", "gelu"}}, {"\"hidden_act\" is \"gelu\""});
  refuse(llama, {{"attention_bias", true}}, {"attention_bias"});
  refuse(llama, {{"mlp_bias", true}}, {"mlp_bias"});
  refuse(llama, {{"partial_rotary_factor", 0.5}}, {"partial_rotary_factor"});
  refuse(llama, {{"quantization_config", {{"quant_method", "gptq"}}}},
         {"quantization_config.quant_method", "gptq"});
  refuse(llama, {{"quantization_config", {{"quant_method", "fp8"}}}}, {"weight_block_size"});
  refuse(v3, {{"rope_interleave", false}}, {"rope_interleave"});
  refuse(v3, {{"scoring_func", "softmax"}}, {"scoring_func"});
  refuse(v3, {{"topk_method", "greedy"}}, {"topk_method"});
  refuse(v3, {{"num_key_value_heads", 2}}, {"num_key_value_heads"});
  refuse(deepseek_json("deepseek_v2"), {{"norm_topk_prob", true}}, {"norm_topk_prob"});
}

TEST(HuggingFaceConfig, RefusesImpossibleNumbers) {
  const json llama = llama_json(), v3 = deepseek_json("deepseek_v3");
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "max_position_embeddings"}) {
    for (const json& value : {json(0), json(-1), json(1e18), json("8"), json(2.5), json(),
                              json(uint64_t{1} << 63), json::array()}) {
      refuse(llama, {{key, value}}, {cat("\"", key, "\"")});
    }
  }
  refuse(llama, {{"num_key_value_heads", 3}}, {"num_key_value_heads"});
  refuse(llama, {{"num_attention_heads", 6}, {"num_key_value_heads", 6}}, {"head_dim"});
  refuse(llama, {{"head_dim", 7}}, {"\"head_dim\" is 7"});
  refuse(llama, {{"rms_norm_eps", -1}}, {"rms_norm_eps"});
  refuse(v3, {{"routed_scaling_factor", 0}}, {"routed_scaling_factor"});
  refuse(v3, {{"qk_rope_head_dim", 5}}, {"qk_rope_head_dim"});
}

// What the model's own config refuses: a config.toml of it could not be read again.
TEST(HuggingFaceConfig, RefusesNumbersOutOfTheModelsRange) {
  json mistral = llama_json(), mixtral = llama_json();
  mistral["model_type"] = "mistral";
  refuse(mistral, {{"sliding_window", 2147483647}}, {"model.window 2147483647"});
  mixtral.update(json({{"model_type", "mixtral"}, {"num_local_experts", 4}}));
  mixtral["num_experts_per_tok"] = 2;
  refuse(mixtral, {{"router_aux_loss_coef", -1}}, {"model.moe.balance.switch_loss -1"});
  refuse(deepseek_json("deepseek_v3"), {{"routed_scaling_factor", 1e9}}, {"model.moe.scaling"});
  refuse(llama_json(), {{"rope_theta", 1e16}}, {"model.rope.theta"});
}

// In the words of the file, also where the number is the class's own.
TEST(HuggingFaceConfig, TellsWhichExpertKeysDoNotFit) {
  json v3 = deepseek_json("deepseek_v3");
  refuse(v3, {{"num_experts_per_tok", 9}},
         {"\"num_experts_per_tok\" is 9, but must be at most n_routed_experts, 8"});
  refuse(v3, {{"n_group", 3}}, {"\"n_group\" is 3, but must divide n_routed_experts, 8"});
  refuse(v3, {{"topk_group", 5}}, {"\"topk_group\" is 5, but must be at most n_group, 4"});
  refuse(v3, {{"topk_group", 1}, {"num_experts_per_tok", 3}},
         {"\"topk_group\" is 1", "2 experts", "num_experts_per_tok, 3"});
  refuse(v3, {{"n_group", 8}}, {"\"n_group\" is 8", "n_routed_experts, 8", "two best"});
  v3.erase("n_group");
  refuse(v3, {{"n_routed_experts", 12}},
         {"\"n_group\" is missing, counts as 8 in this family, and must divide"});
  json mixtral = llama_json();
  mixtral.update(json({{"model_type", "mixtral"}, {"num_local_experts", 4}}));
  refuse(mixtral, {{"num_experts_per_tok", 5}}, {"at most num_local_experts, 4"});
  refuse(mixtral, {{"num_experts_per_tok", 5}, {"num_experts", 3}}, {"at most num_experts, 3"});
}

// The rules are those of the model's own config.
TEST(HuggingFaceConfig, RefusesTheExpertsThatTheModelRefuses) {
  int refused = 0;
  for (const int64_t experts : {1, 2, 4, 6, 8}) {
    for (const int64_t groups : {1, 2, 3, 4, 8}) {
      for (const int64_t chosen_groups : {1, 2, 4, 5}) {
        for (const int64_t chosen : {1, 2, 4, 9}) {
          MoeConfig moe{.experts = experts, .chosen = chosen, .ffn = 12, .shared = 1};
          moe.groups = groups;
          moe.groups_chosen = chosen_groups;
          Complaints complaints;
          moe.validate(complaints);
          json c = deepseek_json("deepseek_v3");
          c.update(json({{"n_routed_experts", experts},
                         {"n_group", groups},
                         {"topk_group", chosen_groups},
                         {"num_experts_per_tok", chosen}}));
          refused += complaints.items().empty() ? 0 : 1;
          if (complaints.items().empty()) {
            EXPECT_EQ(parse_json(c).model.moe.groups, groups);
          } else {
            EXPECT_THROW(parse_json(c), Error) << c.dump();
          }
        }
      }
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(HuggingFaceConfig, WarnsOfWhatIsHardlyMeant) {
  EXPECT_TRUE(parse_json(llama_json()).warnings.empty());
  json c = deepseek_json("deepseek_v3");
  EXPECT_TRUE(parse_json(c).warnings.empty());
  c["architectures"] = {"LlamaForCausalLM"};
  c["rms_norm_eps"] = 0;
  const std::vector<std::string> warnings = parse_json(c).warnings;
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_NE(warnings[0].find("LlamaForCausalLM, but \"model_type\" is \"deepseek_v3\""),
            std::string::npos)
      << warnings[0];
  EXPECT_NE(warnings[1].find("\"rms_norm_eps\" is 0"), std::string::npos) << warnings[1];
  c = llama_json();
  c["architectures"] = {"MyOwnLlama"};  // nothing speaks against the type
  EXPECT_TRUE(parse_json(c).warnings.empty());
}

TEST(HuggingFaceConfig, SurvivesEveryTruncation) {
  const std::string text = deepseek_json("deepseek_v3").dump();
  for (size_t n = 0; n < text.size(); ++n) {
    EXPECT_THROW(parse_hugging_face_config(text.substr(0, n), "config.json"), Error) << n;
  }
}

}  // namespace
}  // namespace shoestring
