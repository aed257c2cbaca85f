#include "io/hugging_face/config_text.h"

#include <gtest/gtest.h>

#include "io/hugging_face/family.h"
#include "io/hugging_face/folder.h"
#include "tests/io/hugging_face/folder_fixture.h"
#include "tests/io/hugging_face/model_fields.h"

namespace shoestring {
namespace {

using nlohmann::json;

TEST(ConfigText, ReadsBackToTheSameModel) {
  for (const auto& [family, model] : small_models()) {
    const HuggingFaceConfig config{.family = family,
                                   .model = model,
                                   .dtype = Dtype::bf16,
                                   .begin_ids = {1},
                                   .end_ids = {2, 3}};
    const HuggingFaceConfig read =
        parse_hugging_face_config(hugging_face_config_text(config), "config.json");
    EXPECT_EQ(read.family, family);
    EXPECT_EQ(read.dtype, Dtype::bf16);
    EXPECT_EQ(read.begin_ids, config.begin_ids);
    EXPECT_EQ(read.end_ids, config.end_ids);
    EXPECT_EQ(carried_fields(read.model), carried_fields(model)) << model_type_of(family);
  }
}

// Readers of version 4 take only the old keys, without a word.
TEST(ConfigText, HasTheKeysOfBothVersions) {
  for (const auto& [family, model] : small_models()) {
    json c = json::parse(hugging_face_config_text({.family = family, .model = model}));
    EXPECT_EQ(c["dtype"], c["torch_dtype"]);
    EXPECT_EQ(c["rope_theta"], c["rope_parameters"]["rope_theta"]);
    EXPECT_TRUE(c["rope_theta"].is_number_float());
    EXPECT_TRUE(c["rms_norm_eps"].is_number_float());
    EXPECT_TRUE(c["architectures"].is_array());
    if (model.rope.scaling == "none") {
      EXPECT_TRUE(c["rope_scaling"].is_null());
    } else {
      for (const auto& [key, value] : c["rope_scaling"].items()) {
        if (key == "type") continue;
        EXPECT_EQ(c["rope_parameters"][key], value) << key;
      }
    }
    for (const char* drop : {"rope_parameters", "rope_scaling"}) {
      json one = c;
      one.erase(drop);
      if (drop[5] == 'p') one.erase("dtype");
      EXPECT_EQ(parse_json(one).model.rope.theta, model.rope.theta) << drop;
      EXPECT_EQ(parse_json(one).model.rope.scaling, model.rope.scaling) << drop;
    }
  }
  const json moe = json::parse(hugging_face_config_text(
      {.family = ModelFamily::qwen3_moe, .model = small_models().at(ModelFamily::qwen3_moe)}));
  EXPECT_EQ(moe["num_experts"], moe["num_local_experts"]);
}

TEST(ConfigText, DescribesBlocks) {
  HuggingFaceConfig config{.family = ModelFamily::qwen3_moe,
                           .model = small_models().at(ModelFamily::qwen3_moe),
                           .blocks = {.rows = 16, .columns = 16}};
  config.model.head_dim = 16;  // every matrix has whole blocks
  const std::string text = hugging_face_config_text(config);
  EXPECT_EQ(parse_hugging_face_config(text, "config.json").blocks.columns, 16);
  const json list = json::parse(text)["quantization_config"]["modules_to_not_convert"];
  EXPECT_EQ(list, json::array({"lm_head", "model.layers.1.mlp.gate"}));
}

// A dense model with latent attention is one whose sparse layers never begin, whatever is left in
// the section of its experts.
TEST(ConfigText, WritesDenseLatentModels) {
  std::vector<ModelConfig> models(4, small_models().at(ModelFamily::deepseek_v3));
  models[0].moe = {};
  models[1].moe.experts = 0;  // groups, scaling, shared experts stay
  models[2].moe.first_dense = models[2].layers;
  models[3].moe = {.experts = 1, .chosen = 1, .ffn = 4, .first_dense = 7};
  for (ModelConfig model : models) {
    for (const int64_t depth : {0, 1}) {
      model.mtp.depth = depth;
      const ScratchFolder folder;
      HuggingFaceExport one = small_export(family_of(model));
      EXPECT_EQ(one.config.family, ModelFamily::deepseek_v3);
      one.config.model = model;
      save_hugging_face(one, folder.path());
      const HuggingFaceFolder read(folder.path());
      EXPECT_EQ(carried_fields(read.config().model), carried_fields(model));
      EXPECT_FALSE(read.config().model.moe.on());
      const json text = json::parse(read_file(folder / "config.json"));
      EXPECT_EQ(text["first_k_dense_replace"], model.layers + depth) << "also of the modules";
      EXPECT_EQ(text["n_group"], 1);
      EXPECT_EQ(text["topk_group"], 1);
    }
  }
}

TEST(ConfigText, WritesGenerationDefaults) {
  const json one = json::parse(generation_config_text({.begin_ids = {}, .end_ids = {5}}));
  EXPECT_TRUE(one["bos_token_id"].is_null());
  EXPECT_EQ(one["eos_token_id"], 5);
  EXPECT_EQ(one["_from_model_config"], true);
}

TEST(ConfigText, KeepsTheDefaultsOfAGeneration) {
  const char* defaults = R"({"do_sample": true, "temperature": 0.6, "eos_token_id": [7, 8],
                             "bos_token_id": 3, "pad_token_id": 0})";
  json want = json::parse(defaults);
  EXPECT_EQ(json::parse(generation_config_text({}, defaults)), want);
  want["eos_token_id"] = 5;
  EXPECT_EQ(json::parse(generation_config_text({.begin_ids = {}, .end_ids = {5}}, defaults)), want);
  EXPECT_EQ(json::parse(generation_config_text({}, "{}")), json::object());
  EXPECT_THROW(generation_config_text({}, "[1]"), Error);
}

}  // namespace
}  // namespace shoestring
