#include "launcher/export_command.h"

#include <gtest/gtest.h>

#include "core/model/parameters.h"
#include "io/safetensors_shards.h"
#include "launcher/import_command.h"
#include "nlohmann/json.hpp"
#include "tests/launcher/folder_model_fixture.h"
#include "tests/launcher/text_model_fixture.h"

namespace shoestring {
namespace {

std::vector<float> values_of(const ModelSource& source, const std::string& name, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  source.read(name, 0, n, Dtype::f32, reinterpret_cast<std::byte*>(values.data()));
  return values;
}

void expect_same_model(const std::string& left, const std::string& right) {
  const ModelSource a(left), b(right);
  const ModelConfig model = a.model();
  EXPECT_TRUE(other_uses_of_weights(model, b.model()).empty())
      << other_uses_of_weights(model, b.model())[0];
  for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
    const int64_t n = p.shape.elements();
    EXPECT_EQ(values_of(a, p.name, n), values_of(b, p.name, n)) << p.name;
  }
  for (int64_t i = 0; i < model.layers; ++i) {
    const std::string bias = selection_bias_name(model, i);
    if (!a.has(bias)) continue;
    EXPECT_EQ(values_of(a, bias, model.moe.experts), values_of(b, bias, model.moe.experts));
  }
}

// The folder that comes out holds the values that went in, straight or by way of a checkpoint.
TEST(ExportCommand, GivesBackEveryFamily) {
  const ScratchFolder folder;
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder(""))) {
    const std::string name = entry.path().filename().string();
    const bool fp8 = name.ends_with("_fp8");  // their values need all of f32
    const std::string out = folder / name, dtype = fp8 ? "f32" : "bf16";
    run_export({.model = golden_folder(name), .out = out, .dtype = dtype, .shard_size = "30KB"});
    expect_same_model(golden_folder(name), out);
    const auto want = nlohmann::json::parse(read_file(golden_folder(name) + "/config.json"));
    const auto got = nlohmann::json::parse(read_file(out + "/config.json"));
    EXPECT_EQ(got["model_type"], want["model_type"]);
    EXPECT_EQ(got["eos_token_id"], want["eos_token_id"]);
    EXPECT_TRUE(std::filesystem::exists(out + "/model.safetensors.index.json"));
  }
}

TEST(ExportCommand, MakesACompleteFolderOfARun) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder), out = folder / "out";
  run_export({.model = run, .out = out});
  for (const char* name : {"config.json", "generation_config.json", "model.safetensors",
                           "tokenizer.json", "tokenizer_config.json", "README.md"}) {
    EXPECT_TRUE(std::filesystem::exists(cat(out, "/", name))) << name;
  }
  expect_same_model(run, out);
  const LoadedModel loaded(
      ModelRequest{.path = out, .tokenizer = "", .dtype = "f32", .threads = 1});
  const LoadedModel own(ModelRequest{.path = run, .tokenizer = "", .dtype = "f32", .threads = 1});
  EXPECT_EQ(loaded.need_tokenizer().hash(), own.need_tokenizer().hash());
  const auto config = nlohmann::json::parse(read_file(out + "/config.json"));
  EXPECT_EQ(config["dtype"], "float32");  // as it was trained
  EXPECT_EQ(config["eos_token_id"], *own.need_tokenizer().end_of_text_id());
  const std::string card = read_file(out + "/README.md");
  for (const char* part : {"| steps | 3 |", "| tokens | 384 |", "validation loss", "text, weight 1",
                           "AutoModelForCausalLM"}) {
    EXPECT_NE(card.find(part), std::string::npos) << part << " is not in\n" << card;
  }
}

// How a model is meant to be sampled goes with it, straight and by way of an import.
TEST(ExportCommand, KeepsTheDefaultsOfAGeneration) {
  const ScratchFolder folder;
  const std::string from = folder / "model";
  std::filesystem::copy(golden_folder("llama"), from);
  const auto given = nlohmann::json::parse(
      R"({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 5]})");
  write_file(from + "/generation_config.json", given.dump());
  run_import({.folder = from, .out = folder / "run"});
  for (const std::string& model : {from, folder / "run"}) {
    run_export({.model = model, .out = folder / "out", .force = true});
    const auto kept = nlohmann::json::parse(read_file(folder / "out/generation_config.json"));
    for (const auto& [key, value] : given.items()) EXPECT_EQ(kept[key], value) << key;
    EXPECT_FALSE(kept.contains("_from_model_config")) << "it was not made from config.json";
  }
  write_file(from + "/generation_config.json", "{\"temperature\": ");
  expect_error(ExitCode::data, {"model/generation_config.json", "ends too early"},
               [&] { run_export({.model = from, .out = folder / "other"}); });
}

// Groups, shared experts and scaling that are left of experts that were switched off.
TEST(ExportCommand, GivesBackALatentModelWithoutExperts) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.model.mla = {.kv_latent = 12, .q_latent = 16, .nope_dim = 8, .rope_dim = 4, .v_dim = 6};
  config.model.moe = {.experts = 0, .chosen = 6, .ffn = 16, .shared = 1, .first_dense = 1};
  config.model.moe.groups = 4;
  config.model.moe.groups_chosen = 2;
  config.model.moe.scores = "sigmoid";
  config.model.moe.scaling = 2.5;
  config.train.steps = 1;
  train_small(config);
  run_export({.model = config.run.directory, .out = folder / "out"});
  expect_same_model(config.run.directory, folder / "out");
}

TEST(ExportCommand, TakesTheAverage) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.optim.ema_decay = 0.5;
  const RunResult run = train_small(config);
  run_export({.model = config.run.directory, .out = folder / "out"});
  const auto& average = run.tensors.at("optim/ema/embedding.weight");
  const std::vector<float> got = values_of(ModelSource(folder / "out"), "embedding.weight",
                                           static_cast<int64_t>(average.size() / 4));
  EXPECT_EQ(std::memcmp(got.data(), average.data(), average.size()), 0);
}

// Every tensor of one file stands in the other with the same bytes; how many are codes.
int expect_same_tensors(const std::string& left, const std::string& right) {
  const SafetensorsFile a(left + "/model.safetensors"), b(right + "/model.safetensors");
  EXPECT_EQ(a.header().tensors.size(), b.header().tensors.size());
  int codes = 0;
  for (const SafetensorsEntry& e : a.header().tensors) {
    const SafetensorsEntry& other = b.entry(e.name);
    EXPECT_EQ(e.type, other.type) << e.name;
    EXPECT_EQ(e.shape, other.shape) << e.name;
    if (e.type != other.type || e.shape != other.shape) continue;
    EXPECT_EQ(std::memcmp(a.data(e), b.data(other), e.end - e.begin), 0) << e.name;
    codes += e.type == "F8_E4M3" ? 1 : 0;
  }
  return codes;
}

// What was published in FP8 comes back byte for byte, blocks that are cut at the edges with it:
// straight and by way of a checkpoint, which holds no codes.
TEST(ExportCommand, GivesFp8FoldersBack) {
  const ScratchFolder folder;
  const std::string from = golden_folder("deepseek_v3_fp8");
  run_import({.folder = from, .out = folder / "run"});
  const auto want = nlohmann::json::parse(read_file(from + "/config.json"));
  for (const std::string& model : {from, folder / "run"}) {
    const std::string out = folder / (model == from ? "straight" : "by_checkpoint");
    run_export({.model = model, .out = out, .dtype = "bf16", .fp8 = true});
    EXPECT_GT(expect_same_tensors(from, out), 60);
    const auto config = nlohmann::json::parse(read_file(out + "/config.json"));
    EXPECT_EQ(config["quantization_config"]["weight_block_size"],
              want["quantization_config"]["weight_block_size"]);
    EXPECT_EQ(config["eos_token_id"], 2) << "by way of the import's generation_config.json";
  }
}

// Qwen3's FP8 folders have scales of bf16, which are f32 in what is written here.
TEST(ExportCommand, WidensTheScalesOfAnFp8Folder) {
  const ScratchFolder folder;
  const std::string from = golden_folder("qwen3_fp8");
  run_export({.model = from, .out = folder / "out", .dtype = "bf16", .fp8 = true});
  const SafetensorsFile a(from + "/model.safetensors"), b(folder / "out/model.safetensors");
  int scales = 0;
  for (const SafetensorsEntry& e : a.header().tensors) {
    const bool scale = e.name.ends_with("_scale_inv");
    const auto n = static_cast<size_t>(e.elements());
    scales += scale ? 1 : 0;
    EXPECT_EQ(e.type == "BF16", scale || e.type != "F8_E4M3") << e.name;
    EXPECT_EQ(b.entry(e.name).type, scale ? "F32" : e.type) << e.name;
    std::vector<float> x(n), y(n);
    a.read(e.name, 0, e.elements(), Dtype::f32, reinterpret_cast<std::byte*>(x.data()));
    b.read(e.name, 0, e.elements(), Dtype::f32, reinterpret_cast<std::byte*>(y.data()));
    EXPECT_EQ(x, y) << e.name;
  }
  EXPECT_EQ(scales, 2 * 7);
}

// Nothing in it has whole blocks of 128 x 128.
TEST(ExportCommand, RefusesFp8ThatWouldBeNone) {
  const ScratchFolder folder;
  expect_error(
      ExitCode::usage, {"--fp8", "128 x 128", "model.layers.*.self_attn.q_proj.weight [32, 32]"},
      [&] { run_export({.model = golden_folder("llama"), .out = folder / "out", .fp8 = true}); });
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
}

TEST(ExportCommand, LeavesPredictionModulesOutOnRequest) {
  const ScratchFolder folder;
  const std::string with = folder / "with", without = folder / "without";
  run_export({.model = golden_folder("deepseek_v3_mtp"), .out = with});
  run_export({.model = golden_folder("deepseek_v3_mtp"), .out = without, .no_mtp = true});
  const ModelSource a(with), b(without);
  EXPECT_GT(a.model().mtp.depth, 0);
  EXPECT_EQ(b.model().mtp.depth, 0);
  const auto config = nlohmann::json::parse(read_file(without + "/config.json"));
  EXPECT_EQ(config["num_nextn_predict_layers"], 0);
  const std::string module = cat("model.layers.", a.model().layers, ".");
  const SafetensorsShards some(without), all(with);
  size_t left_out = 0;
  for (const std::string& name : all.names()) {
    left_out += name.starts_with(module) ? 1 : 0;
    EXPECT_EQ(some.has(name), !name.starts_with(module)) << name;
  }
  EXPECT_GT(left_out, 10u);
  const std::string hint = prediction_hint(a.model());
  EXPECT_NE(hint.find("unexpected keys; --no-mtp"), std::string::npos) << hint;
  EXPECT_NE(hint.find(module.substr(0, module.size() - 1) + " out"), std::string::npos) << hint;
  EXPECT_EQ(prediction_hint(b.model()), "");
  ModelConfig v3 = a.model();
  v3.layers = 61;  // those are known to transformers
  EXPECT_EQ(prediction_hint(v3), "");
  EXPECT_EQ(read_file(without + "/README.md").find("| prediction modules | 1 |"),
            std::string::npos);
}

TEST(ExportCommand, RefusesWhatCannotBeExported) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 1;
  config.model.residual_multiplier = 0.5;
  train_small(config);
  const std::string run = config.run.directory, out = folder / "out";
  expect_error(ExitCode::usage, {"residual_multiplier"},
               [&] { run_export({.model = run, .out = out}); });
  expect_error(ExitCode::usage, {"--format", "onnx"},
               [&] { run_export({.model = run, .out = out, .format = "onnx"}); });
  expect_error(ExitCode::usage, {"--dtype", "f16"},
               [&] { run_export({.model = golden_folder("llama"), .out = out, .dtype = "f16"}); });
  expect_error(ExitCode::data, {"nowhere"},
               [&] { run_export({.model = folder / "nowhere", .out = out}); });
  write_file(out + "/precious", "1");
  for (const bool force : {false, true}) {
    expect_error(ExitCode::usage, {out, "precious"}, [&] {
      run_export({.model = golden_folder("llama"), .out = out, .force = force});
    });
  }
  EXPECT_EQ(read_file(out + "/precious"), "1");
}

// No place takes the model with it, and no run goes for an export.
TEST(ExportCommand, ReplacesOnlyAnExport) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "runs/mine");
  config.train.steps = 1;
  const RunResult before = train_small(config);
  const std::string run = config.run.directory, step = run + "/checkpoints/step_00000001";
  for (const std::string& model : {run, step}) {
    for (const std::string& place : {run, run + "/checkpoints", step, folder / "runs"}) {
      expect_error(ExitCode::usage, {place, "the model that is read", step},
                   [&] { run_export({.model = model, .out = place, .force = true}); });
    }
  }
  expect_error(ExitCode::usage, {run, "not even with --force"},
               [&] { run_export({.model = golden_folder("llama"), .out = run, .force = true}); });
  expect_same_tensors(before, result_of_run(run));
  const std::string out = folder / "out";
  run_export({.model = run, .out = out});
  expect_error(ExitCode::usage, {out, "--force"}, [&] { run_export({.model = run, .out = out}); });
  run_export({.model = golden_folder("qwen3"), .out = out, .force = true});
  EXPECT_TRUE(ModelSource(out).model().qk_norm);
  expect_error(ExitCode::usage, {out, "is the model that is read"},
               [&] { run_export({.model = out, .out = out, .force = true}); });
  EXPECT_TRUE(ModelSource(out).model().qk_norm);
}

TEST(ExportCommand, ReadsShardSizes) {
  EXPECT_EQ(parse_shard_size("5GB"), 5'000'000'000);
  EXPECT_EQ(parse_shard_size("1.5MB"), 1'500'000);
  EXPECT_EQ(parse_shard_size("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(parse_shard_size("4096"), 4096);
  for (const char* text : {"", "GB", "5 GB", "-1GB", "0", "5XB", "nan", "1e300"}) {
    EXPECT_THROW(parse_shard_size(text), Error) << text;
  }
}

}  // namespace
}  // namespace shoestring
