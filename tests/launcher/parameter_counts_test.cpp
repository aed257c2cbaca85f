#include "launcher/parameter_counts.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/model/parameters.h"
#include "launcher/config.h"
#include "launcher/run_config.h"

namespace shoestring {
namespace {

ModelConfig model_of(const std::string& name) {
  const std::string path = std::string(SHOESTRING_SOURCE_DIR) + "/configs/models/" + name + ".toml";
  return read_config<RunConfig>({.file = path, .overrides = {}}).model;
}

TEST(ParameterCounts, AreThoseOfTheListOfAllParameters) {
  const auto models = std::filesystem::directory_iterator(SHOESTRING_SOURCE_DIR "/configs/models");
  int files = 0;
  for (const auto& entry : models) {
    const ModelConfig model = model_of(entry.path().stem().string());
    const ParamCounts listed = count_parameters(model);
    const ParameterCounts counts = parameter_counts(model);
    EXPECT_EQ(counts.total, static_cast<double>(listed.total)) << entry.path();
    EXPECT_EQ(counts.active, static_cast<double>(listed.active)) << entry.path();
    EXPECT_EQ(counts.prediction, static_cast<double>(listed.prediction)) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 25);
}

TEST(ParameterCounts, SayWhatIsNotCounted) {
  EXPECT_EQ(comment_of_parameters(model_of("deepseek-v3")),
            "# parameters: 671,026,404,352 in all, 37,552,282,624 active for a token\n"
            "# not counted: 11,610,067,968 of 1 prediction module; 14,848 selection biases (58 x "
            "256)\n");
  EXPECT_EQ(comment_of_parameters(model_of("qwen3-0.6b")),
            "# parameters: 596,049,920 in all, 596,049,920 active for a token\n");
  const std::string unknown = comment_of_parameters(model_of("mini-mixtral"));
  EXPECT_NE(unknown.find("# not counted: embedding and head"), std::string::npos) << unknown;
}

TEST(ParameterCounts, TellPartsOnlyWhereThereAreSome) {
  EXPECT_EQ(text_of_parameters(model_of("qwen3-0.6b")), "596 M parameters");
  EXPECT_EQ(text_of_parameters(model_of("qwen3-30b-a3b")),
            "30.5 G parameters, 3.35 G active for a token");
  EXPECT_EQ(text_of_parameters(model_of("deepseek-v3")),
            "683 G parameters (11.6 G of them in 1 prediction module), 37.6 G active for a token");
}

TEST(ParameterCounts, OfSizesThatOverflow) {
  ModelConfig model;
  model.layers = 100000;
  model.hidden = model.ffn = 1 << 24;
  model.heads = model.kv_heads = model.head_dim = 1 << 16;
  model.moe = {.experts = 1 << 16, .chosen = 2, .ffn = 1 << 24};
  EXPECT_GT(parameter_counts(model).total, 1e20);
  EXPECT_EQ(comment_of_parameters(model).find("# parameters: about "), 0u);
}

}  // namespace
}  // namespace shoestring
