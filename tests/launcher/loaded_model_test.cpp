#include "launcher/loaded_model.h"

#include <gtest/gtest.h>

#include "tests/launcher/folder_model_fixture.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

ModelRequest at(const std::string& path) {
  return {.path = path, .tokenizer = "", .dtype = "", .threads = 1};
}

TEST(LoadedModel, IsFoundByRunFolderOrCheckpoint) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder);
  config.checkpoint.every = 2;
  const RunResult run = train_small(config);
  const std::string checkpoints = RunDirectory(config.run.directory).checkpoints();
  for (const std::string& path :
       {config.run.directory, checkpoints, checkpoints + "/step_00000003"}) {
    const LoadedModel loaded(at(path));
    EXPECT_EQ(loaded.step, 3);
    EXPECT_EQ(loaded.config.model.vocabulary, 512);
    ASSERT_TRUE(loaded.tokenizer.has_value());
    const Param& p = loaded.store->param("layers.0.mlp.down.weight");
    const auto& saved = run.tensors.at("model/layers.0.mlp.down.weight");
    EXPECT_EQ(std::memcmp(loaded.store->master(p).raw(), saved.data(), saved.size()), 0);
  }
  EXPECT_EQ(LoadedModel(at(checkpoints + "/step_00000002")).step, 2);
}

TEST(LoadedModel, TakesAnotherTypeAndTheAverage) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.ema_decay = 0.5;
  const RunResult run = train_small(config);
  ModelRequest request = at(config.run.directory);
  request.dtype = "bf16";
  const LoadedModel loaded(request);
  EXPECT_EQ(loaded.store->compute(), Dtype::bf16);
  const Param& p = loaded.store->param("embedding.weight");
  const auto& average = run.tensors.at("optim/ema/embedding.weight");
  EXPECT_EQ(std::memcmp(loaded.store->master(p).raw(), average.data(), average.size()), 0);
}

TEST(LoadedModel, ReadsThePositionsOfItsStage) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  StageSection later;
  later.from_tokens = 4 * 128;
  later.rope_scaling = "linear";
  later.rope_factor = 4;
  config.stages = {later};
  config.train.steps = 4;
  train_small(config);
  EXPECT_EQ(LoadedModel(at(config.run.directory)).model->config().rope.scaling, "none");
  config.train.steps = 5;
  train_small(config);
  EXPECT_EQ(LoadedModel(at(config.run.directory)).model->config().rope.scaling, "linear");
}

TEST(LoadedModel, SaysWhatIsMissing) {
  const ScratchFolder folder;
  expect_error(ExitCode::data, {"nowhere"}, [&] { LoadedModel(at(folder / "nowhere")); });
  RunConfig config = small_config(folder);
  config.train.steps = 1;
  train_small(config);
  const LoadedModel loaded(at(config.run.directory));
  expect_error(ExitCode::usage, {"--tokenizer"}, [&] { loaded.need_tokenizer(); });
}

TEST(LoadedModel, RefusesAnotherTokenizerThanItsOwn) {
  const ScratchFolder folder;
  const RunConfig config = text_config(folder);
  train_small(config);
  ModelRequest request = at(config.run.directory);
  const std::string own = LoadedModel(request).need_tokenizer().hash();
  request.tokenizer = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/trained_llama3.json";
  const LoadedModel other(request);
  expect_error(
      ExitCode::data,
      {config.run.directory, own, request.tokenizer, other.tokenizer->hash(), "--tokenizer PATH"},
      [&] { other.need_tokenizer(); });
  // As well when the copy in the run's folder was replaced.
  std::filesystem::copy_file(request.tokenizer, config.run.directory + "/tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  const LoadedModel replaced(at(config.run.directory));
  expect_error(ExitCode::data, {own, config.run.directory + "/tokenizer.json"},
               [&] { replaced.need_tokenizer(); });
}

TEST(LoadedModel, ReadsAHuggingFaceFolder) {
  const ScratchFolder folder;
  const std::string path = copy_with_tokenizer("qwen2", folder);
  const LoadedModel loaded(at(path));
  EXPECT_EQ(loaded.store->compute(), Dtype::bf16) << "as its weights are";
  EXPECT_TRUE(loaded.model->config().qkv_bias);
  EXPECT_EQ(loaded.need_tokenizer().hash(), Tokenizer::load(path).hash());
  ModelRequest request = at(path);
  request.dtype = "f32";
  EXPECT_EQ(LoadedModel(request).store->compute(), Dtype::f32);
  // One that cannot be read keeps nobody from the model.
  write_file(path + "/tokenizer.json", R"({"model": {"type": "Unigram"}})");
  const LoadedModel without(at(path));
  expect_error(ExitCode::data, {"Unigram", "--tokenizer PATH"}, [&] { without.need_tokenizer(); });
}

}  // namespace
}  // namespace shoestring
