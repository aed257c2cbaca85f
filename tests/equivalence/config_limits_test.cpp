// Any number for any key of a config: a message or a run, never more.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cmath>

#include "core/check.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/config_warnings.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// Keys of numbers with the largest value that each is declared to take: "stages.0.batch".
struct NumberKey {
  std::string key;
  double most = 0;
  bool whole = false, many = false;  // many: a list
};

void list_numbers(const FieldList& list, const std::string& at, std::vector<NumberKey>& out) {
  for (const FieldNode& node : list.nodes) {
    const std::string key = join_key(at, node.name);
    if (const auto* section = std::get_if<FieldList>(&node.content)) {
      list_numbers(*section, key, out);
    } else if (const auto* array = std::get_if<TableArray>(&node.content)) {
      for (size_t i = 0; i < array->size(); ++i) list_numbers(array->at(i), cat(key, ".", i), out);
    } else {
      const std::string type = type_text(std::get<FieldPointer>(node.content));
      if (type.find("number") == std::string::npos) continue;
      out.push_back({.key = key,
                     .most = node.field.max,
                     .whole = type.find("whole") != std::string::npos,
                     .many = type.starts_with("list")});
    }
  }
}

class Limits : public testing::Test {
 protected:
  void SetUp() override {
    RunConfig config = small_config(folder_);
    config.train.steps = 1;
    config.train.evaluate_sequences = 0;
    config.stages = {StageSection{}};
    write_file(folder_ / "run.toml", dump_config(config));
    list_numbers(fields_of(config), "", keys_);
  }
  // One message or none: no crash, no other exception, no time, no memory.
  void try_value(const NumberKey& key, const std::string& value,
                 const std::vector<std::string>& model, bool trains) {
    SCOPED_TRACE(cat(key.key, " = ", value));
    std::vector<std::string> sets = model;
    sets.push_back(cat(key.key, "=", key.many ? cat("[", value, "]") : value));
    const auto start = std::chrono::steady_clock::now();
    try {
      auto config = read_config<RunConfig>({folder_ / "run.toml", sets});
      config_warnings(config, 1, {});
      check_inputs(config, 1);
      if (trains) {
        config.run.directory = folder_ / cat("run", ++runs_);
        train(config, {});
      }
    } catch (const Error& error) {
      EXPECT_GT(std::string(error.what()).size(), 20u);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  }
  static int64_t peak_bytes() {
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss * 1024;
  }

  const ScratchFolder folder_;
  std::vector<NumberKey> keys_;
  int runs_ = 0;
};

TEST_F(Limits, EveryNumberHasALargestValue) {
  EXPECT_GT(keys_.size(), 100u);
  for (const NumberKey& key : keys_) {
    EXPECT_TRUE(std::isfinite(key.most) || key.key == "run.seed") << key.key;
  }
}

TEST_F(Limits, NoValueOfAnyNumberDoesMoreThanEndWithAMessage) {
  const std::vector<std::string> moe = {"model.moe.experts=4", "model.moe.ffn=16"};
  std::vector<std::string> latent = {"model.mla.kv_latent=16", "model.mla.q_latent=16",
                                     "model.mtp.depth=1", "train.dtype=bf16",
                                     "precision.recipe=deepseek_v3"};
  latent.insert(latent.end(), moe.begin(), moe.end());
  const int64_t before = peak_bytes();
  for (const NumberKey& key : keys_) {
    const std::string most = std::isfinite(key.most)
                                 ? (key.whole ? cat(static_cast<int64_t>(key.most)) : cat(key.most))
                                 : "9223372036854775807";
    for (const std::vector<std::string>& model : {std::vector<std::string>{}, moe, latent}) {
      try_value(key, most, model, !key.whole && model.empty());
      try_value(key, key.whole ? "9223372036854775807" : "1e300", model, false);
    }
    for (const char* value : {"0", "-1", "-9223372036854775808", "9223372036854775807", "nan",
                              "inf", "1e300", "-1e300", "1e-300"}) {
      try_value(key, value, {}, false);
    }
  }
  EXPECT_LT(peak_bytes() - before, int64_t{1} << 30);
}

TEST_F(Limits, WhatCannotFitIsRefusedBeforeItIsListed) {
  const auto start = std::chrono::steady_clock::now();
  const auto refused = [&](const std::vector<std::string>& sets, const char* part) {
    expect_error(ExitCode::usage, {part}, [&] {
      check_inputs(read_config<RunConfig>({folder_ / "run.toml", sets}), 1);
    });
  };
  refused({"model.max_positions=9223372036854775807"}, "model.max_positions");
  refused({"model.layers=1000000000"}, "model.layers");
  refused({"model.mtp.depth=1000000"}, "model.mtp.depth");
  refused({"checkpoint.memory_limit_gb=1e300"}, "checkpoint.memory_limit_gb");
  refused(
      {"model.layers=100000", "model.hidden=8192", "model.moe.experts=65536", "model.moe.ffn=8192"},
      "the machine has");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

}  // namespace
}  // namespace shoestring
