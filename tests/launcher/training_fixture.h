#pragma once
// What the tests of training share: a small corpus in a scratch folder, a config that trains on it
// in a fraction of a second, and everything a finished run left behind, for comparisons bit by bit.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/check.h"
#include "io/checkpoint.h"
#include "launcher/config.h"
#include "launcher/run_directory.h"
#include "launcher/train_command.h"
#include "nlohmann/json.hpp"
#include "tests/io/store_fixture.h"

namespace shoestring {

inline constexpr int64_t small_vocabulary = 200;

// Documents of 5 to 60 tokens in which each token mostly follows from the one before, so that there
// is something to learn.
std::vector<std::vector<int32_t>> small_documents(int64_t count, uint64_t seed);
void make_small_store(const std::string& path, uint64_t seed, int64_t documents = 300);

// Two blocks, two micro-batches a step, about 40,000 parameters.
RunConfig small_config(const ScratchFolder& folder, const std::string& run = "run");
// The same model on the chapters in the tree, with their tokenizer of 512 ids.
RunConfig text_config(const ScratchFolder& folder, const std::string& run = "text");
// On these: a dense block, three sparse ones and a prediction module.
RunConfig sparse_text_config(const ScratchFolder& folder, const std::string& run);

// What a run left: a line a step, and every tensor of its last checkpoint.
struct RunResult {
  std::vector<nlohmann::json> steps;
  std::map<std::string, std::vector<std::byte>> tensors;
  nlohmann::json summary;
};

std::map<std::string, std::vector<std::byte>> tensors_of_run(const std::string& directory);
RunResult result_of_run(const std::string& directory);
RunResult train_small(const RunConfig& config);

// The numbers of a step that follow from its inputs alone, at full precision.
std::string text_of_step(const nlohmann::json& step);

// The step numbers 1, 2, ... each once, and the same figures.
void expect_same_steps(const RunResult& a, const RunResult& b);
void expect_same_tensors(const RunResult& a, const RunResult& b);
void expect_same_run(const RunResult& a, const RunResult& b);

}  // namespace shoestring
