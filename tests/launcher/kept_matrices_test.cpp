#include "launcher/kept_matrices.h"

#include <gtest/gtest.h>

#include <string>

namespace shoestring {
namespace {

std::string complaint(const std::vector<std::string>& parts, int64_t layers = 2) {
  PrecisionConfig precision;
  precision.recipe = "deepseek_v3";
  precision.keep_bf16 = parts;
  ModelConfig model;
  model.layers = layers;
  Complaints complaints;
  check_kept_matrices(precision, model, complaints);
  std::string text;
  for (const auto& item : complaints.items()) text += item.key + " " + item.message + "\n";
  return text;
}

TEST(KeptMatrices, TakesPartsOfTheNamesOfEveryFamily) {
  EXPECT_EQ(complaint(PrecisionConfig().keep_bf16), "");
  EXPECT_EQ(complaint({"attention", "mlp.", "experts.down", "q_up", "attention.q.", "shared",
                       "qkv.weight", "projection.weight", "gate"}),
            "");
  EXPECT_EQ(complaint({}), "");
}

TEST(KeptMatrices, BlocksMustBeThere) {
  EXPECT_EQ(complaint({"layers.1", "layers.0.mlp.down", "1.attention"}), "");
  EXPECT_NE(complaint({"layers.2"}), "");
  EXPECT_EQ(complaint({"layers.2"}, 3), "");
}

// They are never in FP8: a list may name them, and nobody is led to them.
TEST(KeptMatrices, RoutersAreNoChoice) {
  EXPECT_EQ(complaint({"router", "moe.router", "router.weight"}), "");
  const std::string near = complaint({"rooter"});
  EXPECT_NE(near.find("\"rooter\" stands in the name of no matrix"), std::string::npos) << near;
  EXPECT_EQ(near.find("router"), std::string::npos) << near;
  EXPECT_TRUE(is_part_of_router("router"));
  EXPECT_FALSE(is_part_of_router("weight"));
}

TEST(KeptMatrices, KnowsWhatIsLeftForFp8) {
  PrecisionConfig precision;
  precision.recipe = "deepseek_v3";
  ModelConfig model;
  model.layers = 3;
  model.mtp.depth = 1;
  model.moe = {.experts = 1 << 16, .chosen = 8, .ffn = 1 << 24, .first_dense = 2};
  model.hidden = 1 << 24;  // sizes do not matter
  EXPECT_TRUE(any_block_in_fp8(precision, model));
  EXPECT_TRUE(keeps_a_matrix("projection", precision, model));
  EXPECT_TRUE(keeps_a_matrix("layers.2.moe.experts.down", precision, model));
  EXPECT_FALSE(keeps_a_matrix("layers.1.moe", precision, model));
  EXPECT_FALSE(keeps_a_matrix("router", precision, model));
  EXPECT_FALSE(keeps_a_matrix("kv_down", precision, model));
  precision.keep_bf16 = {"attention", "experts", "mlp"};
  EXPECT_FALSE(any_block_in_fp8(precision, model));
  precision.first_layers_bf16 = 3;
  precision.keep_bf16 = {};
  EXPECT_FALSE(any_block_in_fp8(precision, model));
}

TEST(KeptMatrices, NamesTheNearest) {
  const std::string one = complaint({"router", "atention"});
  EXPECT_NE(one.find("precision.keep_bf16 \"atention\""), std::string::npos) << one;
  EXPECT_NE(one.find("did you mean \"attention\"?"), std::string::npos) << one;
  EXPECT_NE(complaint({"mlp.dwon"}).find("\"mlp.down\"?"), std::string::npos);
  // No matrix of this name is multiplied in FP8, and none is near.
  EXPECT_NE(complaint({"embedding"}).find("there are attention.kv_down, "), std::string::npos)
      << complaint({"embedding"});
  EXPECT_NE(complaint({""}).find("empty"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
