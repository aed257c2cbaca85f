#include "tests/launcher/training_fixture.h"

#include <filesystem>
#include <fstream>

namespace shoestring {

std::vector<std::vector<int32_t>> small_documents(int64_t count, uint64_t seed) {
  std::vector<std::vector<int32_t>> documents;
  uint64_t x = seed;
  auto next = [&x](uint64_t n) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int32_t>((x >> 33) % n);
  };
  for (int64_t d = 0; d < count; ++d) {
    std::vector<int32_t> ids(static_cast<size_t>(5 + next(56)));
    int32_t id = next(small_vocabulary);
    for (int32_t& token : ids) {
      token = id;
      id = next(4) == 0 ? next(small_vocabulary) : (id * 7 + 3) % int32_t{small_vocabulary};
    }
    ids.back() = 0;  // the end of the document
    documents.push_back(std::move(ids));
  }
  return documents;
}

void make_small_store(const std::string& path, uint64_t seed, int64_t documents) {
  std::vector<uint64_t> hashes;  // of the texts; they choose the held-out documents
  for (int64_t d = 0; d < documents; ++d) {
    hashes.push_back((static_cast<uint64_t>(d) + seed * 1000) * 0x9e3779b97f4a7c15u);
  }
  make_store(path, small_documents(documents, seed), plain_facts(small_vocabulary), hashes);
}

RunConfig small_config(const ScratchFolder& folder, const std::string& run) {
  if (!std::filesystem::exists(folder / "first.h5")) {
    make_small_store(folder / "first.h5", 1);
    make_small_store(folder / "second.h5", 2);
  }
  RunConfig c;
  c.threads = 1;
  c.run.directory = folder / run;
  c.model.layers = 2;
  c.model.hidden = 32;
  c.model.ffn = 64;
  c.model.heads = 4;
  c.model.kv_heads = 2;
  c.model.max_positions = 64;
  c.train.steps = 8;
  c.train.batch = 4;
  c.train.micro_batch = 2;
  c.train.sequence_length = 32;
  c.train.log_every = 0;
  c.train.evaluate_sequences = 4;
  c.train.measure_peak = false;
  c.optim.lr = 5e-3;
  c.optim.schedule.total = 4000;  // the same course of the rate whatever train.steps is
  c.checkpoint.every = 0;
  c.data.held_out = 0.1;
  c.data.sources = {{.name = "first", .path = folder / "first.h5", .weight = 1, .held_out = {}}};
  return c;
}

RunConfig text_config(const ScratchFolder& folder, const std::string& run) {
  const std::string data = SHOESTRING_SOURCE_DIR "/tests/data/tiny/";
  RunConfig c = small_config(folder, run);
  c.tokenizer = data + "tokenizer.json";
  c.train.steps = 3;
  c.data.sources = {
      {.name = "persuasion", .path = data + "persuasion.h5", .weight = 1, .held_out = {}}};
  return c;
}

RunConfig sparse_text_config(const ScratchFolder& folder, const std::string& run) {
  RunConfig c = text_config(folder, run);
  c.train.batch = 8, c.train.micro_batch = 1;
  c.model.layers = 4;
  c.model.moe = {.experts = 4,
                 .chosen = 2,
                 .ffn = 16,
                 .shared = 1,
                 .first_dense = 1,
                 .scores = "sigmoid",
                 .balance = {.bias_speed = 0.01, .sequence = 1e-3}};
  c.model.mtp.depth = 1;
  return c;
}

std::map<std::string, std::vector<std::byte>> tensors_of_run(const std::string& directory) {
  std::map<std::string, std::vector<std::byte>> tensors;
  const Checkpoint checkpoint = Checkpoint::open(directory);
  for (const std::string& name : checkpoint.names()) {
    const int64_t n = checkpoint.shape(name).elements();
    std::vector<std::byte> bytes(static_cast<size_t>(n) * size_of(checkpoint.dtype(name)));
    checkpoint.read(name, 0, n, checkpoint.dtype(name), bytes.data());
    tensors[name] = std::move(bytes);
  }
  return tensors;
}

RunResult result_of_run(const std::string& directory) {
  RunResult result{.steps = {}, .tensors = tensors_of_run(directory), .summary = {}};
  std::ifstream metrics(RunDirectory(directory).metrics());
  for (std::string line; std::getline(metrics, line);) {
    const auto record = nlohmann::json::parse(line);
    result.steps.push_back(record);
  }
  if (std::ifstream summary(directory + "/summary.json"); summary) {
    result.summary = nlohmann::json::parse(summary);
  }
  return result;
}

RunResult train_small(const RunConfig& config) {
  EXPECT_EQ(train(config, {}), ExitCode::done);
  return result_of_run(config.run.directory);
}

std::string text_of_step(const nlohmann::json& step) {
  nlohmann::json kept;
  for (const char* key : {"step", "loss", "tokens", "gradient_norm", "lr", "accuracy", "skipped"}) {
    kept[key] = step.at(key);
  }
  return kept.dump();
}

void expect_same_steps(const RunResult& a, const RunResult& b) {
  ASSERT_EQ(a.steps.size(), b.steps.size());
  for (size_t i = 0; i < a.steps.size(); ++i) {
    EXPECT_EQ(a.steps[i].at("step"), i + 1);
    EXPECT_EQ(text_of_step(a.steps[i]), text_of_step(b.steps[i]));
  }
}

void expect_same_tensors(const RunResult& a, const RunResult& b) {
  ASSERT_FALSE(a.tensors.empty());
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, bytes] : a.tensors) {
    ASSERT_TRUE(b.tensors.contains(name)) << name;
    EXPECT_TRUE(bytes == b.tensors.at(name)) << name << " differs";
  }
}

void expect_same_run(const RunResult& a, const RunResult& b) {
  expect_same_steps(a, b);
  expect_same_tensors(a, b);
}

}  // namespace shoestring
