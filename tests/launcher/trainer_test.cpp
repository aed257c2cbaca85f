#include "launcher/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "launcher/export_command.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

std::set<std::string> folders_in(const std::string& path) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

TEST(Trainer, BeginsWithTheWeightsOfAnotherRun) {
  const ScratchFolder folder;
  RunConfig first = small_config(folder, "first");
  const RunResult taught = train_small(first);
  RunConfig second = small_config(folder, "second");
  second.run.seed = 77;
  second.train.steps = 1;
  second.optim.lr = 0;  // the update changes nothing
  second.train.init_from = first.run.directory;
  const RunResult run = train_small(second);
  EXPECT_EQ(run.steps.size(), 1u);
  for (const auto& [name, bytes] : taught.tensors) {
    if (!name.starts_with("model/")) continue;
    EXPECT_TRUE(run.tensors.at(name) == bytes) << name;
  }
  EXPECT_LT(run.steps[0].at("loss"), taught.steps[0].at("loss"));
  // Only the first start of a run reads them.
  second.train.steps = 2;
  std::filesystem::remove_all(first.run.directory);
  EXPECT_EQ(train_small(second).steps.size(), 2u);
}

TEST(Trainer, SaysWhyWeightsToBeginWithDoNotFit) {
  const ScratchFolder folder;
  RunConfig first = small_config(folder, "first");
  first.train.steps = 1;
  train_small(first);
  RunConfig second = small_config(folder, "second");
  second.train.init_from = folder / "nowhere";
  expect_error(ExitCode::data, {"nowhere"}, [&] { train(second, {}); });
  second.train.init_from = first.run.directory;
  second.model.hidden = 64;
  const std::string text =
      expect_error(ExitCode::data, {"another model", "embedding.weight", "train.init_from"},
                   [&] { train(second, {}); });
  EXPECT_EQ(text.find("run.directory"), std::string::npos) << text;  // another one would not help
}

TEST(Trainer, BeginsWithTheWeightsOfAHuggingFaceFolder) {
  const ScratchFolder folder;
  RunConfig first = small_config(folder, "first");
  const RunResult taught = train_small(first);
  run_export({.model = first.run.directory, .out = folder / "hf", .dtype = "f32"});
  RunConfig second = small_config(folder, "second");
  second.train.steps = 1;
  second.optim.lr = 0;
  second.train.init_from = folder / "hf";
  const RunResult run = train_small(second);
  for (const auto& [name, bytes] : taught.tensors) {
    if (!name.starts_with("model/")) continue;
    EXPECT_TRUE(run.tensors.at(name) == bytes) << name;
  }
  second.run.directory = folder / "third";
  second.model.ffn = 96;
  expect_error(ExitCode::data, {"another model", "layers.0.mlp.down.weight", "model section"},
               [&] { train(second, {}); });
}

// The average begins at the weights that the run begins with, not at the random ones it drew.
TEST(Trainer, TheAverageBeginsAtTheWeightsOfAnotherRun) {
  const ScratchFolder folder;
  RunConfig first = small_config(folder, "first");
  const RunResult taught = train_small(first);
  RunConfig second = small_config(folder, "second");
  second.run.seed = 77;
  second.train.steps = 2;
  second.optim.lr = 0;  // weights and average stay what they were
  second.optim.ema_decay = 0.9999;
  second.train.init_from = first.run.directory;
  const RunResult run = train_small(second);
  for (const auto& [name, bytes] : taught.tensors) {
    if (!name.starts_with("model/")) continue;
    EXPECT_TRUE(run.tensors.at("optim/ema/" + name.substr(6)) == bytes) << name;
  }
}

TEST(Trainer, BeginsOnlyWithWeightsOfItsOwnTokenizer) {
  const ScratchFolder folder;
  RunConfig first = small_config(folder, "first");
  first.train.steps = 1;
  train_small(first);
  TokenStoreFacts facts = plain_facts(small_vocabulary);
  facts.tokenizer_hash = "another";
  make_store(folder / "other.h5", small_documents(200, 3), facts);
  RunConfig second = small_config(folder, "second");
  second.data.sources[0].path = folder / "other.h5";
  second.train.init_from = first.run.directory;
  expect_error(ExitCode::data, {first.run.directory, "abc", folder / "other.h5", "another"},
               [&] { train(second, {}); });
  EXPECT_FALSE(std::filesystem::exists(second.run.directory + "/config.toml"));
}

TEST(Trainer, KeepsTheCheckpointsItWasAskedTo) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 11;
  config.checkpoint.every = 2;
  config.checkpoint.keep = 2;
  config.checkpoint.keep_every = 4;
  const RunResult run = train_small(config);
  EXPECT_EQ(
      folders_in(RunDirectory(config.run.directory).checkpoints()),
      (std::set<std::string>{"step_00000004", "step_00000008", "step_00000010", "step_00000011"}));
  EXPECT_EQ(run.summary.at("checkpoint_saves"), 6);
  EXPECT_GT(run.summary.at("checkpoint_bytes"), 0);
}

// A checkpoint that was passed over at the start does not push out the good one.
TEST(Trainer, ABrokenCheckpointIsNotAmongTheKept) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.steps = 6;
  config.checkpoint.every = 2;
  config.checkpoint.keep = 2;
  train_small(config);
  const RunDirectory directory(config.run.directory);
  const std::string broken = directory.checkpoints() + "/step_00000006";
  std::filesystem::resize_file(broken + "/rank_00000.h5", 5000);
  config.checkpoint.every = 1;
  config.train.steps = 5;
  train_small(config);  // goes on from step 4
  EXPECT_EQ(folders_in(directory.checkpoints()),
            (std::set<std::string>{"step_00000004", "step_00000005", "step_00000006"}));
}

TEST(Trainer, EvaluatesAndSamplesOnTime) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder);
  config.train.steps = 5;
  config.train.evaluate_every = 2;
  config.train.sample_every = 4;
  config.train.sample_prompt = "Sir Walter";
  config.train.sample_tokens = 5;
  std::filesystem::copy_file(config.tokenizer, folder / "austen-512.json");
  config.tokenizer = folder / "austen-512.json";
  const RunResult run = train_small(config);
  ASSERT_EQ(run.steps.size(), 5u);
  for (int64_t step = 1; step <= 5; ++step) {
    const nlohmann::json& record = run.steps[static_cast<size_t>(step - 1)];
    EXPECT_EQ(record.contains("validation_loss"), step % 2 == 0 || step == 5) << step;
    EXPECT_EQ(record.contains("sample"), step == 4 || step == 5) << step;
  }
  EXPECT_EQ(run.steps[4].at("validation_loss"), run.summary.at("validation_loss"));
  EXPECT_EQ(run.steps[4].at("bits_per_byte"), run.summary.at("bits_per_byte"));
  EXPECT_EQ(run.steps[4].at("validation_loss/persuasion"),
            run.summary.at("sources").at("persuasion").at("validation_loss"));
  EXPECT_TRUE(run.steps[3].at("sample").get<std::string>().starts_with("Sir Walter"));
  EXPECT_EQ(run.steps[4].at("sample"), run.summary.at("sample"));  // the last step has one, too
  // Called what readers look for, whatever its name was.
  EXPECT_EQ(read_file(config.run.directory + "/tokenizer.json"), read_file(config.tokenizer));
}

// The file beside the tokenizer names the tokens that begin and end texts.
TEST(Trainer, KeepsAllOfATokenizersFolder) {
  const ScratchFolder folder;
  RunConfig config = text_config(folder);
  config.train.steps = 1;
  std::filesystem::create_directory(folder / "tokenizer");
  std::filesystem::copy_file(config.tokenizer, folder / "tokenizer/tokenizer.json");
  config.tokenizer = folder / "tokenizer";
  write_file(folder / "tokenizer/tokenizer_config.json", "{\"eos_token\": \"e\"}");
  train_small(config);
  for (const char* name : {"/tokenizer.json", "/tokenizer_config.json"}) {
    EXPECT_EQ(read_file(config.run.directory + name), read_file(config.tokenizer + name)) << name;
  }
}

// The average of the weights is what is evaluated: it lags behind them.
TEST(Trainer, EvaluatesTheWeightAverage) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder, "plain");
  config.train.steps = 12;
  const double plain = train_small(config).summary.at("validation_loss");
  config.run.directory = folder / "averaged";
  config.optim.ema_decay = 0.9999;
  const double averaged = train_small(config).summary.at("validation_loss");
  // The average has kept 0.9999 ^ 12 of the weights that the run began with.
  EXPECT_NEAR(averaged, std::log(256.0), 0.03);
  EXPECT_LT(plain, averaged - 0.2);
}

}  // namespace
}  // namespace shoestring
