#include "launcher/model_source.h"

#include <gtest/gtest.h>

#include "core/model/parameters.h"
#include "io/checkpoint_save.h"
#include "launcher/import_command.h"
#include "tests/launcher/folder_model_fixture.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

std::vector<float> values_of(const ModelSource& source, const std::string& name, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  source.read(name, 0, n, Dtype::f32, reinterpret_cast<std::byte*>(values.data()));
  return values;
}

TEST(ModelSource, ReadsACheckpointAndItsAverage) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.ema_decay = 0.5;
  const RunResult run = train_small(config);
  ModelSource source(config.run.directory);
  EXPECT_EQ(source.folder(), nullptr);
  EXPECT_EQ(source.step(), config.train.steps);
  EXPECT_TRUE(source.has("final_norm.gain"));
  EXPECT_FALSE(source.has("layers.0.moe.router.bias"));
  EXPECT_EQ(values_of(source, "layers.0.moe.router.bias", 3), std::vector<float>(3, 0.0f));
  for (const char* kind : {"model/", "optim/ema/"}) {
    const auto& bytes = run.tensors.at(cat(kind, "layers.1.mlp.down.weight"));
    const auto n = static_cast<int64_t>(bytes.size() / 4);
    const std::vector<float> got = values_of(source, "layers.1.mlp.down.weight", n);
    EXPECT_EQ(std::memcmp(got.data(), bytes.data(), bytes.size()), 0) << kind;
    source.prefer_average();
  }
}

TEST(ModelSource, ReadsAHuggingFaceFolder) {
  const ScratchFolder folder;
  const std::string path = copy_with_tokenizer("deepseek_v3", folder);
  const ModelSource source(path);
  ASSERT_NE(source.folder(), nullptr);
  EXPECT_EQ(source.step(), 0);
  EXPECT_EQ(source.config().train.dtype, "bf16");
  EXPECT_EQ(source.model().mla.kv_latent, 16);
  EXPECT_EQ(source.tokenizer_path(), path + "/tokenizer.json");
  EXPECT_EQ(source.trained_hash(), Tokenizer::load(path).hash());
  EXPECT_EQ(source.stored_type("final_norm.gain"), Dtype::bf16);
  EXPECT_EQ(source.stored_type("layers.1.moe.router.bias"), Dtype::f32);
  const std::vector<float> bias = values_of(source, "layers.1.moe.router.bias", 8);
  EXPECT_NE(bias, std::vector<float>(8, 0.0f));
  // Beside a tokenizer_config.json the folder is named, so that it is read too.
  write_file(path + "/tokenizer_config.json", "{}");
  EXPECT_EQ(ModelSource(path).tokenizer_path(), path);
}

TEST(ModelSource, KnowsWhatHadCodes) {
  const ScratchFolder folder;
  const std::string from = golden_folder("deepseek_v3_fp8"), run = folder / "run";
  run_import({.folder = from, .out = run});
  for (const std::string& path : {from, run}) {
    const Fp8Origin origin = ModelSource(path).fp8_origin();
    EXPECT_EQ(origin.blocks.rows, 16);
    EXPECT_EQ(origin.blocks.columns, 16);
    EXPECT_TRUE(origin.parameters.contains("layers.2.moe.experts.down.weight"));
    EXPECT_FALSE(origin.parameters.contains("layers.2.moe.router.weight"));
    EXPECT_EQ(origin.parameters.size(), 3u * 5 + 2 + 2 * 4);
  }
  EXPECT_FALSE(ModelSource(golden_folder("deepseek_v3")).fp8_origin().blocks.on());
  const std::string config = Checkpoint::open(run).config();
  for (const char* state : {R"({"fp8_codes": 7})", R"({"fp8_codes": ["a"], "fp8_blocks": [1]})",
                            R"({"fp8_codes": ["a"], "fp8_blocks": [0, 16]})"}) {
    const ScratchFolder damaged;
    save_checkpoint(damaged / "checkpoints",
                    {.step = 0, .config = config, .state = state, .pieces = {}});
    expect_error(ExitCode::data, {"FP8 blocks"},
                 [&] { ModelSource(damaged / "checkpoints").fp8_origin(); });
  }
}

// A run that was trained into the folder it began with, or moved there.
TEST(ModelSource, RefusesAFolderOfTwoModels) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 1;
  train_small(config);
  const std::string run = config.run.directory;
  std::filesystem::copy(golden_folder("llama"), run, std::filesystem::copy_options::recursive);
  expect_error(ExitCode::data, {run, "two models", run + "/checkpoints"},
               [&] { ModelSource source(run); });
  EXPECT_EQ(ModelSource(run + "/checkpoints").step(), 1);
}

TEST(ModelSource, FillsAStoreOfTheSameModelOnly) {
  const ModelSource source(golden_folder("qwen2"));
  Device device;
  const ModelConfig& model = source.config().model;
  ParamStore store(device, parameters_of(model, whole_model(model)), Dtype::bf16);
  source.restore(store, "");
  const Param& p = store.param("layers.1.attention.qkv.bias");
  const std::vector<float> want = values_of(source, p.info.name, p.elements);
  EXPECT_EQ(std::memcmp(store.master(p).raw(), want.data(), want.size() * 4), 0);
  EXPECT_EQ(static_cast<float>(store.weight(p).span<BFloat16>()[5]), want[5]);
  ModelConfig other = model;
  other.qkv_bias = false;
  other.ffn = 44;
  ParamStore wrong(device, parameters_of(other, whole_model(other)), Dtype::f32);
  expect_error(ExitCode::data,
               {golden_folder("qwen2"), "layers.0.attention.qkv.bias", "not expected",
                "layers.1.mlp.down.weight is [32, 40]", "should be [32, 44]", "what to do"},
               [&] { source.restore(wrong, "what to do"); });
}

TEST(ModelSource, SaysWhatIsNowhere) {
  expect_error(ExitCode::data, {"nowhere"}, [] { ModelSource source("nowhere"); });
}

TEST(ModelSource, TellsOtherUsesOfWeights) {
  ModelConfig there{.layers = 2, .hidden = 32, .heads = 4, .kv_heads = 2};
  ModelConfig here = there;
  here.head_dim = 8;  // what it is anyway
  here.max_positions = 17;
  here.init.hidden = 3;
  here.moe.balance.z_loss = 1;
  here.moe.groups = 4;  // of no experts
  EXPECT_TRUE(other_uses_of_weights(there, here).empty());
  here.moe = {.experts = 4, .first_dense = 2};  // of no sparse layer
  EXPECT_TRUE(other_uses_of_weights(there, here).empty());
  here.rope.theta = 5e5;
  here.norm_epsilon = 1e-6;
  const std::vector<std::string> lines = other_uses_of_weights(there, here);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_NE(lines[1].find("model.rope.theta"), std::string::npos) << lines[1];
}

}  // namespace
}  // namespace shoestring
