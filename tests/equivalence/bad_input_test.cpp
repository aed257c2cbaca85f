// Whatever is wrong with a run's inputs: one message that says what and where, the exit code that
// belongs to it, and everything saved before stays.

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "io/checkpoint_folder.h"
#include "io/checkpoint_save.h"
#include "launcher/rank_state.h"
#include "launcher/step.h"
#include "parallel/comm/in_process.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

std::string expect_train_error(ExitCode code, const RunConfig& config,
                               const std::vector<std::string>& parts) {
  return expect_error(code, parts, [&] { train(config, {}); });
}

void flip_byte(const std::string& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const int c = file.get();
  file.seekp(at);
  file.put(static_cast<char>(c ^ 0x10));
  ASSERT_TRUE(file.good());
}

TEST(BadInput, ContradictoryConfigs) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.data.sources.clear();
  expect_train_error(ExitCode::usage, config, {"data.sources is empty"});
  config = small_config(folder);
  config.train.sequence_length = 128;
  expect_train_error(ExitCode::usage, config,
                     {"train.sequence_length is 128", "model.max_positions = 64"});
  config = small_config(folder);
  config.optim.ramp.tokens = {1000};
  config.optim.ramp.sequences = {3};
  expect_train_error(ExitCode::usage, config, {"3 sequences", "micro-batch of 2"});
  config = small_config(folder);
  config.optim.schedule.warmup_tokens = 5000;
  expect_train_error(ExitCode::usage, config, {"warm-up", "5000"});
  config = small_config(folder);
  config.train.sequence_length = 60;
  StageSection longer;
  longer.from_tokens = 240;
  longer.sequence_length = 64;
  config.stages = {longer};
  expect_train_error(ExitCode::usage, config, {"60", "64"});
  EXPECT_FALSE(std::filesystem::exists(config.run.directory));
}

TEST(BadInput, MissingTruncatedAndDamagedStores) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  const RunResult good = train_small(config);
  config.train.steps = 16;
  const std::string store = folder / "first.h5", whole = read_file(store);

  std::filesystem::remove(store);
  expect_train_error(ExitCode::data, config, {store});
  write_file(store, whole.substr(0, whole.size() - 100));
  expect_train_error(ExitCode::data, config, {store});
  write_file(store, whole);
  flip_byte(store, 4096 + 2000);  // in the tokens
  expect_train_error(ExitCode::data, config, {store});
  write_file(store, whole);
  flip_byte(store, static_cast<std::streamoff>(whole.size()) - 200);  // in the tables
  expect_train_error(ExitCode::data, config, {store});

  EXPECT_EQ(result_of_run(config.run.directory).steps.size(), 8u);
  write_file(store, whole);
  EXPECT_EQ(train_small(config).steps.size(), 16u);
}

TEST(BadInput, IdsOutsideTheModelAndOtherTokenizers) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.model.vocabulary = 150;
  expect_train_error(ExitCode::data, config, {folder / "first.h5", "200", "150"});
  config = small_config(folder);
  config.tokenizer = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/trained_gpt2.json";
  expect_train_error(ExitCode::data, config, {folder / "first.h5", "trained_gpt2.json"});
  TokenStoreFacts facts = plain_facts(small_vocabulary);
  facts.tokenizer_hash = "another";
  make_store(folder / "other.h5", small_documents(50, 3), facts);
  config = small_config(folder);
  config.data.sources.push_back(
      {.name = "other", .path = folder / "other.h5", .weight = 1, .held_out = {}});
  expect_train_error(ExitCode::data, config, {"other.h5"});

  config = small_config(folder);
  train_small(config);
  config.train.steps = 16;
  config.data.sources[0].path = folder / "other.h5";
  expect_train_error(ExitCode::data, config, {"tokenizer", "another", "abc"});
}

std::string newest_rank_file(const std::string& run) {
  return Checkpoint::open(run).path() + "/rank_00000.h5";
}

TEST(BadInput, ADamagedCheckpointGivesWayToTheOneBefore) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.checkpoint.every = 3;
  const RunResult whole = train_small(config);
  const std::string newest = newest_rank_file(config.run.directory);
  flip_byte(newest, static_cast<std::streamoff>(std::filesystem::file_size(newest)) / 2);
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const RunResult again = train_small(config);
  const std::string printed =
      testing::internal::GetCapturedStderr() + testing::internal::GetCapturedStdout();
  EXPECT_NE(printed.find(newest), std::string::npos) << printed;
  EXPECT_NE(printed.find("resuming after step 6"), std::string::npos) << printed;
  expect_same_run(whole, again);
}

TEST(BadInput, WithEveryCheckpointDamagedNothingIsReplaced) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  train_small(config);
  const std::string newest = newest_rank_file(config.run.directory);
  flip_byte(newest, static_cast<std::streamoff>(std::filesystem::file_size(newest)) / 2);
  config.train.steps = 16;
  expect_train_error(ExitCode::data, config, {newest});
  EXPECT_TRUE(std::filesystem::exists(newest));
  EXPECT_NE(read_file(config.run.directory + "/config.toml").find("steps = 8"), std::string::npos);
}

// The folder is named, and what to do with it.
TEST(BadInput, ImportedWeightsAreNoRunToGoOnWith) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  train_small(config);
  const Checkpoint checkpoint = Checkpoint::open(config.run.directory);
  const std::string imported = folder / "imported";
  std::filesystem::create_directories(imported);
  const std::vector<float> weight(8, 1.0f);
  save_checkpoint(imported + "/checkpoints",
                  {.step = 0,
                   .config = checkpoint.config(),
                   .state = R"({"step": 0, "imported_from": "/somewhere"})",
                   .pieces = {{.name = "model/w",
                               .shape = Shape{8},
                               .begin = 0,
                               .end = 8,
                               .dtype = Dtype::f32,
                               .data = reinterpret_cast<const std::byte*>(weight.data())}}});
  config.run.directory = imported;
  expect_train_error(ExitCode::data, config,
                     {imported + "/checkpoints/step_00000000 holds imported weights",
                      cat("train.init_from = \"", imported, "\""), "another run.directory"});
}

TEST(BadInput, ACheckpointOfAnotherModelOrOptimiser) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  const RunResult good = train_small(config);
  RunConfig other = config;
  other.train.steps = 16;
  other.model.ffn = 96;
  other.model.layers = 3;
  expect_train_error(ExitCode::data, other,
                     {"another model", "layers.0.mlp.down.weight", "layers.2"});
  other = config;
  other.train.steps = 16;
  other.optim.optimizer = "muon";
  expect_train_error(ExitCode::usage, other, {"optim.optimizer was adamw and is muon"});
  // A mistaken start leaves everything as it was.
  EXPECT_NE(read_file(config.run.directory + "/config.toml").find("layers = 2"), std::string::npos);
  config.train.steps = 8;
  expect_same_run(good, train_small(config));
}

// What would make the same numbers mean something else is refused, whatever the shapes of the
// tensors: each names both values, and the run stays as it was.
TEST(BadInput, AChangedSeedBatchOrAttentionDoesNotGoOn) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  const RunResult good = train_small(config);
  config.train.steps = 16;
  const auto refused = [&](const std::vector<std::string>& parts, auto change) {
    RunConfig other = config;
    change(other);
    expect_train_error(ExitCode::usage, other, parts);
    EXPECT_EQ(tensors_of_run(config.run.directory), good.tensors);
    EXPECT_EQ(result_of_run(config.run.directory).steps.size(), 8u);
  };
  refused({"run.seed was 1 and is 2"}, [](RunConfig& c) { c.run.seed = 2; });
  refused({"32 sequences read so far", "it would be 64", "train.batch"},
          [](RunConfig& c) { c.train.batch = 8; });
  refused({"it would be 24", "optim.ramp"}, [](RunConfig& c) {
    c.optim.ramp.tokens = {4 * 2 * 32};
    c.optim.ramp.sequences = {2};
  });
  // Projections of the same shape, cut into other heads.
  refused({"model.heads was 4 and is 2", "model.kv_heads was 2 and is 1"}, [](RunConfig& c) {
    c.model.heads = 2;
    c.model.kv_heads = 1;
  });
  refused({"model.rope.theta was"}, [](RunConfig& c) { c.model.rope.theta = 7000; });
  EXPECT_EQ(train_small(config).steps.size(), 16u);
}

// --- losses that are not finite

class NotFinite : public testing::TestWithParam<int64_t> {};  // ranks

TEST_P(NotFinite, ALossEndsTheRunAndLeavesTheCheckpoint) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.parallel.data_parallel = GetParam();
  config.train.steps = 2;
  const RunResult good = train_small(config);
  config.train.steps = 20;
  config.optim.lr = 1e30;
  config.optim.clip = 0;
  const auto begin = std::chrono::steady_clock::now();
  const std::string message = expect_train_error(
      ExitCode::fault, config,
      {"not finite", "rank ", "step ", "tensor ", "sample", "nothing was updated"});
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30)) << message;
  // For whoever chose the learning rate: the rank once, and no place in the source.
  EXPECT_EQ(message.find("rank "), message.rfind("rank ")) << message;
  EXPECT_EQ(message.find(".cpp"), std::string::npos) << message;
  // What led to it is not saved: from the last checkpoint on, a lower rate helps.
  EXPECT_NE(message.find("goes on after step 2 ("), std::string::npos) << message;
  EXPECT_NE(message.find("optim.clip = 1"), std::string::npos) << message;
  EXPECT_EQ(message.find("optim.skip"), std::string::npos) << message;  // no window was full
  EXPECT_EQ(tensors_of_run(config.run.directory), good.tensors);
  config.optim.lr = 1e-3;
  config.train.steps = 6;
  EXPECT_EQ(train_small(config).steps.size(), 6u);
}

std::vector<int64_t> steps_kept(const RunConfig& config) {
  return CheckpointFolder(RunDirectory(config.run.directory).checkpoints()).steps();
}

// Weights that an update has made infinite push out no checkpoint that is good.
TEST_P(NotFinite, StateIsNotSavedInPlaceOfGoodState) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.parallel.data_parallel = GetParam();
  config.parallel.zero_stage = GetParam() > 1 ? 1 : 0;
  config.checkpoint.every = 1;
  config.checkpoint.keep = 1;
  config.train.steps = 4;
  const RunResult good = train_small(config);
  config.train.steps = 9;
  config.optim.lr = 1e39;  // infinite in f32
  config.optim.clip = 0;
  expect_train_error(
      ExitCode::fault, config,
      {"the state is not finite: rank ", "after step 5, tensor ", "(element ", "of the weight is ",
       "goes on after step 4 (", "/checkpoints/step_00000004; 1 step lost)", "optim.lr"});
  EXPECT_EQ(tensors_of_run(config.run.directory), good.tensors);
  config.optim.lr = 1e-3;
  EXPECT_EQ(train_small(config).steps.size(), 9u);
}

// Weights that are finite but lead to no finite loss: what an evaluation shows is not saved; what
// nobody looked at is, but the good checkpoint before it stays, whatever checkpoint.keep says.
TEST_P(NotFinite, ACheckpointThatLeadsThereIsNamedAndPushesOutNone) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.parallel.data_parallel = GetParam();
  config.checkpoint.every = 1;
  config.checkpoint.keep = 1;
  config.train.steps = 3;
  const RunResult good = train_small(config);
  EXPECT_EQ(steps_kept(config), (std::vector<int64_t>{3}));
  const RunConfig lower = config;
  config.train.steps = 4;
  config.optim.lr = 1000;
  config.optim.clip = 0;
  StageSection wild;
  wild.lr_multiplier = 1e6;
  config.stages = {wild};
  expect_train_error(ExitCode::fault, config,
                     {"the validation loss of first after step 4 is not finite",
                      "goes on after step 3 (", "optim.clip = 1"});
  EXPECT_EQ(steps_kept(config), (std::vector<int64_t>{3}));
  EXPECT_EQ(tensors_of_run(config.run.directory), good.tensors);
  config.train.evaluate_sequences = 0;
  train(config, {});
  EXPECT_EQ(steps_kept(config), (std::vector<int64_t>{3, 4}));
  config.train.steps = 6;
  const std::string message = expect_train_error(
      ExitCode::fault, config,
      {"the loss is not finite", "remove ", "/checkpoints/step_00000004", "goes on after step 3,"});
  EXPECT_EQ(steps_kept(config), (std::vector<int64_t>{3, 4}));
  std::filesystem::remove_all(config.run.directory + "/checkpoints/step_00000004");
  config = lower;
  config.train.steps = 6;
  EXPECT_EQ(train_small(config).steps.size(), 6u);
  EXPECT_EQ(steps_kept(config), (std::vector<int64_t>{6}));
}

INSTANTIATE_TEST_SUITE_P(Ranks, NotFinite, testing::Values(1, 2, 3),
                         testing::PrintToStringParamName());

TEST(NotFiniteStep, NamesThePoisonedWeight) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  std::string bad_message;
  try {
    run_ranks(1, [&](Communicator& world) {
      RunTrace trace({}, 0);
      RankState rank(config, world, 1);
      const Param& p = rank.store->param("layers.1.mlp.down.weight");
      rank.store->master(p).data<float>()[7] = std::numeric_limits<float>::quiet_NaN();
      StepRunner runner(rank, trace);
      runner.run(rank.loader->batch(0, 0, 1));
    });
  } catch (const Error& error) {
    bad_message = error.what();
    EXPECT_EQ(error.code(), ExitCode::fault);
  }
  for (const char* part : {"rank 0", "step 1", "layers.1.mlp.down.weight", "element 7", "sample ",
                           "nothing was updated"}) {
    EXPECT_NE(bad_message.find(part), std::string::npos) << part << " is not in: " << bad_message;
  }
}

// A finite loss with gradients beyond f32's range: a tiny embedding that is multiplied up again has
// a huge gradient.
TEST(NotFiniteStep, AGradientNamesItsTensorWhoeverOwnsIt) {
  const ScratchFolder folder;
  for (int64_t zero_stage : {0, 1}) {
    RunConfig config = small_config(folder);
    config.parallel.zero_stage = zero_stage;
    config.parallel.bucket_mb = 0.02;
    config.train.batch = 6;
    config.model.embedding_multiplier = 3e38;
    config.model.init.embedding = 1e-44;
    config.model.norm_epsilon = 0;
    std::string message;
    try {
      run_ranks(3, [&](Communicator& world) {
        RunTrace trace({}, world.rank());
        RankState rank(config, world, 1);
        rank.store->initialise(1);
        const std::vector<float> before(rank.store->master().begin(), rank.store->master().end());
        const AbortOnUnwind abort(world);
        StepRunner runner(rank, trace);
        try {
          runner.run(rank.loader->batch(0, world.rank(), world.size()));
        } catch (const Error&) {
          EXPECT_EQ(std::memcmp(before.data(), rank.store->master().data(), before.size() * 4), 0);
          throw;
        }
      });
    } catch (const Error& error) {
      message = error.what();
      EXPECT_EQ(error.code(), ExitCode::fault);
    }
    for (const char* part : {"a gradient is not finite: rank ", "step 1", "tensor embedding.weight",
                             "samples 0 to 5", "nothing was updated"}) {
      EXPECT_NE(message.find(part), std::string::npos) << part << " is not in: " << message;
    }
  }
}

}  // namespace
}  // namespace shoestring
