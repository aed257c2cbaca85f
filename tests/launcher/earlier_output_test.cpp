#include "launcher/earlier_output.h"

#include <gtest/gtest.h>

#include <chrono>

#include "launcher/export_command.h"
#include "launcher/import_command.h"
#include "tests/launcher/folder_model_fixture.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

void make_younger(const std::string& path) {
  fs::last_write_time(path, fs::file_time_type::clock::now() + std::chrono::minutes(1));
}

void expect_reason(const std::string& reason, const std::string& part) {
  EXPECT_NE(reason.find(part), std::string::npos) << '"' << reason << "\" lacks " << part;
}

TEST(EarlierOutput, KnowsAnExportOfOneFileAndOfShards) {
  const ScratchFolder folder;
  const std::string from = copy_with_tokenizer("deepseek_v3", folder);
  run_export({.model = from, .out = folder / "one"});
  EXPECT_EQ(why_no_export(folder / "one"), "");
  run_export({.model = from, .out = folder / "many", .shard_size = "20KB"});
  EXPECT_EQ(why_no_export(folder / "many"), "");
  EXPECT_NE(why_no_import(folder / "one"), "");
}

TEST(EarlierOutput, AnExportThatWasTouchedIsNone) {
  const ScratchFolder folder;
  const std::string out = folder / "out";
  run_export({.model = golden_folder("llama"), .out = out});
  write_file(out + "/notes.txt", "1");
  expect_reason(why_no_export(out), "notes.txt, which export does not write");
  fs::remove(out + "/notes.txt");
  fs::create_directory(out + "/checkpoints");
  expect_reason(why_no_export(out), "checkpoints");
  fs::remove(out + "/checkpoints");
  write_file(out + "/model-1-of-2.safetensors", "1");
  expect_reason(why_no_export(out), "model-1-of-2.safetensors");
  fs::remove(out + "/model-1-of-2.safetensors");
  EXPECT_EQ(why_no_export(out), "");
  make_younger(out + "/model.safetensors");  // trained elsewhere and saved into it
  expect_reason(why_no_export(out), "model.safetensors, which was changed");
}

TEST(EarlierOutput, AFolderOfOthersIsNoExport) {
  expect_reason(why_no_export(golden_folder("llama")), "holds");
  const ScratchFolder folder;
  write_file(folder / "a/config.json", "{}");
  expect_reason(why_no_export(folder / "a"), "no README.md of an export");
  write_file(folder / "a/README.md", "# A card\n");
  expect_reason(why_no_export(folder / "a"), "no README.md of an export");
}

TEST(EarlierOutput, KnowsAnImport) {
  const ScratchFolder folder;
  const std::string from = copy_with_tokenizer("qwen3", folder), out = folder / "out";
  run_import({.folder = from, .out = out});
  EXPECT_EQ(why_no_import(out), "");
  EXPECT_NE(why_no_export(out), "");
  write_file(out + "/metrics.jsonl", "");
  expect_reason(why_no_import(out), "metrics.jsonl, which import does not write");
  fs::remove(out + "/metrics.jsonl");
  const std::string step = out + "/checkpoints/step_00000000";
  write_file(step + "/notes", "1");
  expect_reason(why_no_import(out), "notes");
  fs::remove(step + "/notes");
  fs::create_directory(out + "/checkpoints/step_00000001");
  expect_reason(why_no_import(out), "checkpoints/step_00000001");
  fs::remove(out + "/checkpoints/step_00000001");
  make_younger(out + "/config.toml");  // edited
  expect_reason(why_no_import(out), "config.toml, which was changed");
  write_file(step + "/manifest.json", "{}");
  expect_reason(why_no_import(out), "cannot be read");
}

TEST(EarlierOutput, ARunIsNeither) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 1;
  train_small(config);
  EXPECT_NE(why_no_import(config.run.directory), "");
  EXPECT_NE(why_no_export(config.run.directory), "");
  // Stripped to what an import has.
  for (const auto& entry : fs::directory_iterator(config.run.directory)) {
    const std::string name = entry.path().filename().string();
    if (name != "config.toml" && name != "checkpoints") fs::remove_all(entry.path());
  }
  expect_reason(why_no_import(config.run.directory), "of a run");
  fs::rename(config.run.directory + "/checkpoints/step_00000001",
             config.run.directory + "/checkpoints/step_00000000");
  expect_reason(why_no_import(config.run.directory), "the checkpoint of a run");
}

}  // namespace
}  // namespace shoestring
