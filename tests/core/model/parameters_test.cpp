#include "core/model/parameters.h"

#include <gtest/gtest.h>

#include "core/text.h"

namespace shoestring {
namespace {

// Published totals and counts without embeddings.
TEST(Parameters, CountsEqualThePublishedOnes) {
  const ModelConfig llama_8b{
      .layers = 32, .hidden = 4096, .ffn = 14336, .heads = 32, .kv_heads = 8, .vocabulary = 128256};
  EXPECT_EQ(count_parameters(llama_8b).total, 8030261248);
  EXPECT_EQ(count_parameters(llama_8b).non_embedding, 6979588096);
  const ModelConfig smollm_135m{.layers = 30,
                                .hidden = 576,
                                .ffn = 1536,
                                .heads = 9,
                                .kv_heads = 3,
                                .vocabulary = 49152,
                                .tied_embeddings = true};
  EXPECT_EQ(count_parameters(smollm_135m).total, 134515008);
  const ModelConfig qwen25_05b{.layers = 24,
                               .hidden = 896,
                               .ffn = 4864,
                               .heads = 14,
                               .kv_heads = 2,
                               .vocabulary = 151936,
                               .tied_embeddings = true,
                               .qkv_bias = true};
  EXPECT_EQ(count_parameters(qwen25_05b).total, 494032768);
  const ModelConfig qwen3_06b{.layers = 28,
                              .hidden = 1024,
                              .ffn = 3072,
                              .heads = 16,
                              .kv_heads = 8,
                              .head_dim = 128,
                              .vocabulary = 151936,
                              .tied_embeddings = true,
                              .qk_norm = true};
  EXPECT_EQ(count_parameters(qwen3_06b).total, 596049920);
  EXPECT_EQ(count_parameters(qwen3_06b).non_embedding, 440467456);
}

TEST(Parameters, FlopCountsProductsAndHalfOfCausalAttention) {
  const ModelConfig m{
      .layers = 12, .hidden = 512, .ffn = 1408, .heads = 8, .kv_heads = 4, .vocabulary = 8192};
  const double weights = 12.0 * (512 * 1024 + 512 * 512 + 3 * 512 * 1408) + 8192 * 512;
  EXPECT_DOUBLE_EQ(training_flop_per_token(m, 512), 6 * weights + 6.0 * 12 * 512 * 512);
  ModelConfig windowed = m;
  windowed.window = 128;
  EXPECT_DOUBLE_EQ(training_flop_per_token(windowed, 512), 6 * weights + 6.0 * 12 * 128 * 512);
}

// The module of the released DeepSeek-V3: its norms, projection and one sparse block.
TEST(Parameters, PredictionModulesAreCountedApart) {
  ModelConfig m{.layers = 61, .hidden = 7168, .ffn = 18432, .heads = 128, .kv_heads = 128};
  m.vocabulary = 129280;
  m.mla = {.kv_latent = 512, .q_latent = 1536};
  m.moe = {.experts = 256, .chosen = 8, .ffn = 2048, .shared = 1, .first_dense = 3};
  m.mtp.depth = 1;
  const ParamCounts counts = count_parameters(m);
  EXPECT_EQ(counts.total, 671'026'404'352);
  EXPECT_EQ(counts.prediction, 11'610'067'968);
}

TEST(Parameters, NamesFollowTheKindOfEachBlock) {
  ModelConfig m{.layers = 2, .hidden = 8, .ffn = 12, .heads = 2, .kv_heads = 1, .vocabulary = 16};
  m.mla = {.kv_latent = 4, .q_latent = 0, .nope_dim = 4, .rope_dim = 2, .v_dim = 3};
  m.moe = {.experts = 4, .chosen = 2, .ffn = 5, .shared = 1, .first_dense = 1};
  m.mtp.depth = 1;
  std::vector<std::string> names;
  for (const ParamInfo& p : parameters_of(m, whole_model(m))) {
    std::string shape;
    for (int64_t dim : p.shape.dims()) shape += cat(" ", dim);
    names.push_back(p.name + shape);
  }
  auto has = [&](const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  EXPECT_TRUE(has("layers.0.attention.q.weight 12 8"));
  EXPECT_TRUE(has("layers.0.attention.kv_down.weight 6 8"));
  EXPECT_TRUE(has("layers.0.attention.kv_up.weight 14 4"));
  EXPECT_TRUE(has("layers.0.attention.output.weight 8 6"));
  EXPECT_TRUE(has("layers.0.mlp.gate_up.weight 24 8"));
  EXPECT_TRUE(has("layers.1.moe.router.weight 4 8"));
  EXPECT_TRUE(has("layers.1.moe.experts.gate_up.weight 40 8"));
  EXPECT_TRUE(has("layers.1.moe.experts.down.weight 32 5"));
  EXPECT_TRUE(has("layers.1.moe.shared.down.weight 8 5"));
  EXPECT_TRUE(has("mtp.0.projection.weight 8 16"));
  EXPECT_TRUE(has("mtp.0.moe.router.weight 4 8"));
  EXPECT_FALSE(has("layers.0.moe.router.weight 4 8"));
  EXPECT_EQ(names.front(), "embedding.weight 16 8");
  EXPECT_EQ(names.back(), "mtp.0.final_norm.gain 8");
}

// Per token: every matrix it meets once, the head once a prediction, half of the pairs.
TEST(Parameters, FlopOfSparseModelsCountWhatATokenPasses) {
  ModelConfig m{.layers = 1, .hidden = 8, .ffn = 12, .heads = 2, .kv_heads = 1, .vocabulary = 16};
  m.mla = {.kv_latent = 4, .q_latent = 0, .nope_dim = 4, .rope_dim = 2, .v_dim = 3};
  m.moe = {.experts = 4, .chosen = 2, .ffn = 5};
  const double attention = 12 * 8 + 6 * 8 + 14 * 4 + 8 * 6;
  const double experts = 4 * 8 + 2 * 3 * 8 * 5;
  EXPECT_DOUBLE_EQ(training_flop_per_token(m, 0), 6 * (attention + experts + 16 * 8));
  EXPECT_DOUBLE_EQ(training_flop_per_pair(m), 6 * 2 * (6 + 3));
}

TEST(Parameters, SparseBlocksKeepASelectionBias) {
  ModelConfig m{.layers = 3, .hidden = 8, .ffn = 12, .heads = 2, .kv_heads = 2, .vocabulary = 16};
  EXPECT_TRUE(states_of(m, whole_model(m)).empty());
  m.moe = {.experts = 4, .chosen = 2, .ffn = 5, .first_dense = 1};
  m.mtp.depth = 1;
  const auto states = states_of(m, whole_model(m));
  ASSERT_EQ(states.size(), 3u);
  EXPECT_EQ(states[0].first, "layers.1.moe.router.bias");
  EXPECT_EQ(states[2].first, "mtp.0.moe.router.bias");
  EXPECT_EQ(states[2].second, (Shape{4}));
}

}  // namespace
}  // namespace shoestring
