#include "core/model/config.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

// Published totals and counts without embeddings.
TEST(ModelConfig, CountsEqualThePublishedOnes) {
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

TEST(ModelConfig, FlopCountsProductsAndHalfOfCausalAttention) {
  const ModelConfig m{
      .layers = 12, .hidden = 512, .ffn = 1408, .heads = 8, .kv_heads = 4, .vocabulary = 8192};
  const double weights = 12.0 * (512 * 1024 + 512 * 512 + 3 * 512 * 1408) + 8192 * 512;
  EXPECT_DOUBLE_EQ(training_flop_per_token(m, 512), 6 * weights + 6.0 * 12 * 512 * 512);
  ModelConfig windowed = m;
  windowed.window = 128;
  EXPECT_DOUBLE_EQ(training_flop_per_token(windowed, 512), 6 * weights + 6.0 * 12 * 128 * 512);
}

TEST(ModelConfig, ImpossibleHeadsAreComplaints) {
  ModelConfig m;
  m.heads = 3;
  m.kv_heads = 2;
  m.hidden = 64;
  Complaints c;
  m.validate(c);
  ASSERT_GE(c.items().size(), 2u);
  EXPECT_EQ(c.items()[0].key, "kv_heads");
  EXPECT_EQ(c.items()[1].key, "head_dim");
  Complaints none;
  ModelConfig().validate(none);
  EXPECT_TRUE(none.items().empty());
}

}  // namespace
}  // namespace shoestring
