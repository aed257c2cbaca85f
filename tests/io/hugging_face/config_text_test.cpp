#include "io/hugging_face/config_text.h"

#include <gtest/gtest.h>

#include "tests/io/hugging_face/config_fixture.h"

namespace shoestring {
namespace {

using nlohmann::json;

// All fields of the model as text.
struct Texts {
  json fields;
  template <class T>
  void operator()(std::string_view name, T& value, const Field&) {
    if constexpr (Section<T>) {
      Texts inner;
      value.visit(inner);
      fields[std::string(name)] = inner.fields;
    } else {
      fields[std::string(name)] = value;
    }
  }
};
json fields_of_model(ModelConfig model) {
  Texts texts;
  model.head_dim = model.mla.on() ? 0 : model.dim_of_head();
  model.visit(texts);
  return texts.fields;
}

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
    EXPECT_EQ(fields_of_model(read.model).dump(1), fields_of_model(model).dump(1))
        << model_type_of(family);
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
                           .blocks = {.rows = 128, .columns = 128}};
  const std::string text = hugging_face_config_text(config);
  EXPECT_EQ(parse_hugging_face_config(text, "config.json").blocks.columns, 128);
  const json list = json::parse(text)["quantization_config"]["modules_to_not_convert"];
  EXPECT_EQ(list, json::array({"lm_head", "model.layers.1.mlp.gate"}));
}

// A dense model with latent attention is one whose sparse layers never begin.
TEST(ConfigText, WritesDenseLatentModels) {
  ModelConfig model = small_models().at(ModelFamily::deepseek_v3);
  model.moe = {};
  const HuggingFaceConfig read = parse_hugging_face_config(
      hugging_face_config_text({.family = ModelFamily::deepseek_v3, .model = model}), "c.json");
  for (int64_t i = 0; i < model.layers; ++i) EXPECT_FALSE(read.model.moe.sparse(i));
}

TEST(ConfigText, WritesGenerationDefaults) {
  const json one = json::parse(generation_config_text({.begin_ids = {}, .end_ids = {5}}));
  EXPECT_TRUE(one["bos_token_id"].is_null());
  EXPECT_EQ(one["eos_token_id"], 5);
}

}  // namespace
}  // namespace shoestring
