#include "launcher/import_command.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/model/parameters.h"
#include "launcher/loaded_model.h"
#include "tests/io/hugging_face/folder_fixture.h"
#include "tests/launcher/folder_model_fixture.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// Every parameter of the checkpoint has the folder's bits.
void expect_same_values(const std::string& left, const std::string& right) {
  const ModelSource a(left), b(right);
  for (const ParamInfo& p : parameters_of(a.config().model, whole_model(a.config().model))) {
    std::vector<float> x(static_cast<size_t>(p.shape.elements())), y = x;
    a.read(p.name, 0, p.shape.elements(), Dtype::f32, reinterpret_cast<std::byte*>(x.data()));
    b.read(p.name, 0, p.shape.elements(), Dtype::f32, reinterpret_cast<std::byte*>(y.data()));
    EXPECT_EQ(x, y) << p.name;
    EXPECT_EQ(a.stored_type(p.name), b.stored_type(p.name)) << p.name;
  }
}

TEST(ImportCommand, MakesACheckpointOfEveryFamily) {
  const ScratchFolder folder;
  for (const char* name : {"llama", "mistral_window", "qwen2", "qwen3", "qwen3_moe", "mixtral",
                           "deepseek_v2_lite", "deepseek_v3_mtp", "deepseek_v3_fp8"}) {
    const std::string out = folder / name;
    run_import({.folder = golden_folder(name), .out = out});
    expect_same_values(golden_folder(name), out);
    const Checkpoint checkpoint = Checkpoint::open(out);
    EXPECT_EQ(checkpoint.step(), 0);
    const bool fp8 = std::string(name) == "deepseek_v3_fp8";
    EXPECT_EQ(checkpoint.dtype("model/layers.0.attention.output.weight"),
              fp8 ? Dtype::f32 : Dtype::bf16);
  }
}

TEST(ImportCommand, CopiesTheTokenizerAndTheConfig) {
  const ScratchFolder folder;
  const std::string from = copy_with_tokenizer("llama", folder), out = folder / "run";
  write_file(from + "/generation_config.json", "{\"eos_token_id\": [1, 2]}");
  run_import({.folder = from, .out = out});
  EXPECT_EQ(read_file(out + "/tokenizer.json"), read_file(from + "/tokenizer.json"));
  EXPECT_EQ(read_file(out + "/generation_config.json"), "{\"eos_token_id\": [1, 2]}");
  const RunConfig config = read_config<RunConfig>({.file = out + "/config.toml", .overrides = {}});
  EXPECT_EQ(config.model.hidden, 32);
  EXPECT_EQ(config.train.dtype, "bf16");
  const LoadedModel loaded(
      ModelRequest{.path = out, .tokenizer = "", .dtype = "f32", .threads = 1});
  EXPECT_EQ(loaded.need_tokenizer().hash(), Tokenizer::load(from).hash());
  EXPECT_EQ(loaded.trained_hash, Tokenizer::load(from).hash());
}

TEST(ImportCommand, KeepsWhatIsThere) {
  const ScratchFolder folder;
  const std::string out = folder / "run";
  write_file(out + "/precious", "1");
  const ImportOptions options{.folder = golden_folder("llama"), .out = out};
  expect_error(ExitCode::usage, {out, "precious", "another folder"}, [&] { run_import(options); });
  ImportOptions forced = options;
  forced.force = true;
  expect_error(ExitCode::usage, {out, "precious", "not even with --force"},
               [&] { run_import(forced); });
  EXPECT_EQ(read_file(out + "/precious"), "1");
}

TEST(ImportCommand, ReplacesOnlyAnImport) {
  const ScratchFolder folder;
  const std::string out = folder / "run", llama = golden_folder("llama");
  run_import({.folder = llama, .out = out});
  expect_error(ExitCode::usage, {out, "--force"},
               [&] { run_import({.folder = llama, .out = out}); });
  run_import({.folder = golden_folder("qwen3"), .out = out, .force = true});
  EXPECT_TRUE(ModelSource(out).model().qk_norm);
  RunConfig config = small_config(folder, "trained");
  config.train.steps = 1;
  const RunResult before = train_small(config);
  expect_error(ExitCode::usage, {config.run.directory, "not even with --force"},
               [&] { run_import({.folder = llama, .out = config.run.directory, .force = true}); });
  expect_same_tensors(before, result_of_run(config.run.directory));
  const std::string model = copy_with_tokenizer("llama", folder);
  for (const std::string& place : {model, folder.path()}) {
    expect_error(ExitCode::usage, {place, "the model that is read"},
                 [&] { run_import({.folder = model, .out = place, .force = true}); });
  }
  const std::string shard = "/model-00001-of-00002.safetensors";
  ASSERT_TRUE(std::filesystem::exists(model + shard));
  EXPECT_EQ(read_file(model + shard), read_file(llama + shard));
}

TEST(ImportCommand, RefusesNumbersThatAreNone) {
  const ScratchFolder folder;
  const std::string from = copy_with_tokenizer("qwen3", folder), out = folder / "run";
  write_element(from, "model.norm.weight", 3, BFloat16(std::nanf("")));
  expect_error(ExitCode::data, {from, "element 3 of model.norm.weight", "nan"},
               [&] { run_import({.folder = from, .out = out}); });
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(ImportCommand, LeavesNothingAfterAFailure) {
  const ScratchFolder folder;
  expect_error(ExitCode::data, {"nowhere", "config.json"},
               [&] { run_import({.folder = folder / "nowhere", .out = folder / "run"}); });
  const std::string from = folder / "broken";
  std::filesystem::copy(golden_folder("qwen3"), from);
  std::filesystem::resize_file(from + "/model.safetensors", 5000);
  expect_error(ExitCode::data, {"model.safetensors"},
               [&] { run_import({.folder = from, .out = folder / "run"}); });
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run.part"));
}

}  // namespace
}  // namespace shoestring
