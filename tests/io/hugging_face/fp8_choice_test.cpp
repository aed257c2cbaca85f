#include "io/hugging_face/fp8_choice.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/text.h"
#include "tests/io/hugging_face/config_fixture.h"

namespace shoestring {
namespace {

constexpr Fp8Blocks small_blocks{.rows = 16, .columns = 16};

HuggingFaceConfig config_of(ModelFamily family) {
  return {.family = family, .model = small_models().at(family), .blocks = small_blocks};
}

bool is_fp8(const HuggingFaceConfig& config, const std::string& name) {
  const Fp8Choice choice(config);
  for (const FolderTensor& t : folder_tensors(config.family, config.model)) {
    if (t.name == name) return choice.is_fp8(t);
  }
  ADD_FAILURE() << "no tensor " << name;
  return false;
}

bool has(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

TEST(Fp8Choice, IsNothingWithoutBlocks) {
  HuggingFaceConfig config = config_of(ModelFamily::llama);
  config.blocks = {};
  EXPECT_FALSE(is_fp8(config, "model.layers.0.mlp.up_proj.weight"));
  EXPECT_TRUE(Fp8Choice(config).plain_modules().empty());
}

TEST(Fp8Choice, TakesEveryMatrixOfWholeBlocks) {
  const HuggingFaceConfig config = config_of(ModelFamily::llama);
  const Fp8Choice choice(config);
  EXPECT_EQ(choice.fp8(), 2 * 7);
  EXPECT_EQ(choice.plain(), 0);
  EXPECT_EQ(choice.plain_modules(), (std::vector<std::string>{"lm_head"}));
  EXPECT_FALSE(is_fp8(config, "lm_head.weight"));
  EXPECT_FALSE(is_fp8(config, "model.embed_tokens.weight"));
}

// 4 heads of 12 dims: q has 48 rows, k and v 24.
TEST(Fp8Choice, LeavesWhatReadersFuseInOneType) {
  const HuggingFaceConfig config = config_of(ModelFamily::qwen3_moe);
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    EXPECT_FALSE(is_fp8(config, cat("model.layers.0.self_attn.", name, ".weight"))) << name;
  }
  EXPECT_TRUE(is_fp8(config, "model.layers.0.self_attn.o_proj.weight"));
  EXPECT_TRUE(is_fp8(config, "model.layers.1.mlp.experts.5.up_proj.weight"));
  const Fp8Choice choice(config);
  EXPECT_EQ(choice.plain(), 2 * 3);
  EXPECT_TRUE(has(choice.plain_kinds(), "model.layers.*.self_attn.k_proj.weight [24, 32]"));
  EXPECT_EQ(choice.plain_kinds().size(), 3u);
}

TEST(Fp8Choice, LeavesBothDownProjectionsOfLatents) {
  HuggingFaceConfig config = config_of(ModelFamily::deepseek_v3);
  config.model.mla.q_latent = 16;
  const std::string q = "model.layers.0.self_attn.q_a_proj.weight";  // [16, 32]
  EXPECT_FALSE(is_fp8(config, q)) << "kv_a_proj_with_mqa has 20 rows";
  EXPECT_TRUE(has(Fp8Choice(config).plain_modules(), "model.layers.0.self_attn.q_a_proj"));
  config.model.mla.rope_dim = 16;
  EXPECT_TRUE(is_fp8(config, q));
  EXPECT_FALSE(has(Fp8Choice(config).plain_modules(), "model.layers.0.self_attn.q_a_proj"));
}

// Their gate and up would be whole blocks were it not for down, of 40 columns, and the other way
// round for down; and nobody reads a layer's experts of two types.
TEST(Fp8Choice, LeavesALayersExpertsByOneName) {
  HuggingFaceConfig config = config_of(ModelFamily::deepseek_v3);
  config.model.moe.ffn = 40;
  EXPECT_FALSE(is_fp8(config, "model.layers.1.mlp.experts.3.down_proj.weight"));
  std::vector<std::string> modules = Fp8Choice(config).plain_modules();
  const auto named = [](const std::string& name) { return name.find("mlp.experts") < name.size(); };
  EXPECT_EQ(std::count_if(modules.begin(), modules.end(), named), 2) << "a layer and a module";
  EXPECT_TRUE(has(modules, "model.layers.1.mlp.experts"));
  EXPECT_TRUE(has(modules, "model.layers.1.mlp.shared_experts.up_proj"));
  config.model.moe.ffn = 32;
  EXPECT_TRUE(is_fp8(config, "model.layers.1.mlp.experts.3.down_proj.weight"));
  modules = Fp8Choice(config).plain_modules();
  EXPECT_EQ(std::count_if(modules.begin(), modules.end(), named), 0);
}

TEST(Fp8Choice, NamesRoutersThatAreLinearLayers) {
  HuggingFaceConfig config = config_of(ModelFamily::mixtral);
  EXPECT_TRUE(has(Fp8Choice(config).plain_modules(), "model.layers.0.block_sparse_moe.gate"));
  config.model.moe.ffn = 40;
  EXPECT_TRUE(has(Fp8Choice(config).plain_modules(), "model.layers.1.block_sparse_moe.experts"));
  EXPECT_FALSE(has(Fp8Choice(config_of(ModelFamily::deepseek_v3)).plain_modules(),
                   "model.layers.1.mlp.gate"));
}

// Those and no others, whatever their shape; what transformers misreads is told.
TEST(Fp8Choice, KeepsTheCodesThatWereRead) {
  HuggingFaceConfig config = config_of(ModelFamily::deepseek_v3);
  config.coded = {"layers.0.attention.kv_down.weight", "layers.1.moe.experts.down.weight",
                  "mtp.0.projection.weight"};
  EXPECT_TRUE(is_fp8(config, "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"));
  EXPECT_TRUE(is_fp8(config, "model.layers.1.mlp.experts.7.down_proj.weight"));
  EXPECT_TRUE(is_fp8(config, "model.layers.2.eh_proj.weight"));
  EXPECT_FALSE(is_fp8(config, "model.layers.1.self_attn.kv_a_proj_with_mqa.weight"));
  EXPECT_FALSE(is_fp8(config, "model.layers.0.mlp.down_proj.weight"));
  const Fp8Choice choice(config);
  EXPECT_EQ(choice.fp8(), 1 + 8 + 1);
  EXPECT_EQ(
      choice.cut_kinds(),
      (std::vector<std::string>{"model.layers.*.self_attn.kv_a_proj_with_mqa.weight [20, 32]"}))
      << "12 columns are one block for every reader";
}

}  // namespace
}  // namespace shoestring
