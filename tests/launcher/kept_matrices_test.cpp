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
