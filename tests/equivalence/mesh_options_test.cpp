// Options of a mesh that save time or memory: whole runs have the bits of those without them.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "core/text.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// Two pipeline ranks, two expert ranks.
RunConfig mesh_config(const ScratchFolder& folder, const std::string& run) {
  RunConfig c = sparse_text_config(folder, run);
  c.mesh.pp = 2, c.mesh.ep = 2;
  c.parallel.data_parallel = 2;
  c.pipeline.schedule = "dualpipev";
  return c;
}

struct Variant {
  const char* name;
  std::function<void(RunConfig&)> set;
};

void PrintTo(const Variant& v, std::ostream* out) { *out << v.name; }

std::vector<Variant> variants() {
  return {
      {"dualpipev_exact", [](RunConfig& c) { c.train.exact = true; }},
      {"dualpipe_exact_zero_2",
       [](RunConfig& c) {
         c.pipeline.schedule = "dualpipe";
         c.train.exact = true;
         c.parallel.zero_stage = 2;
       }},
      {"pipeline_of_pairs_exact",
       [](RunConfig& c) {
         c.pipeline.schedule = "1f1b";
         c.train.exact = true;
         c.model.tied_embeddings = true;
       }},
      {"pipeline_of_pairs_zero_3",
       [](RunConfig& c) {
         c.pipeline.schedule = "1f1b";
         c.parallel.zero_stage = 3;
         c.train.recompute = "block";
       }},
      {"interleaved_bf16",
       [](RunConfig& c) {
         c.pipeline.schedule = "interleaved-1f1b";
         c.train.dtype = "bf16";
         c.train.recompute = "attention";
         c.parallel.zero_stage = 1;
       }},
      {"dualpipe_tensor_slices",
       [](RunConfig& c) {
         c.pipeline.schedule = "dualpipe";
         c.mesh.tp = 2, c.mesh.etp = 2;
         c.train.recompute = "block";
       }},
      {"dualpipev_nodes_global_batch",
       [](RunConfig& c) {
         c.mesh.ep = 4, c.mesh.ranks_per_node = 2;
         c.mesh.order = "tp-cp-dp_shard-dp_replicate-pp";
         c.parallel.data_parallel = 4;
         c.train.batch = 16;
         c.model.moe.balance.global_batch = 1e-3;
       }},
      {"fp8_with_watchdog",
       [](RunConfig& c) {
         c.train.dtype = "bf16";
         c.precision.recipe = "deepseek_v3";
         c.precision.watchdog.every = 2;
         c.model.hidden = 128;
         c.model.moe.ffn = 128;
       }},
  };
}

class Overlap : public testing::TestWithParam<Variant> {};

TEST_P(Overlap, ChangesNoBit) {
  const ScratchFolder folder;
  RunConfig config = mesh_config(folder, "whole");
  GetParam().set(config);
  const RunResult whole = train_small(config);
  config.run.directory = folder / "parts";
  config.pipeline.overlap = true;
  expect_same_run(train_small(config), whole);
}

INSTANTIATE_TEST_SUITE_P(All, Overlap, testing::ValuesIn(variants()),
                         [](const auto& info) { return std::string(info.param.name); });

// Capacity drops rows of uneven loads; what is left travels padded.
TEST(ExpertRows, FixedOnesHaveTheBitsOfExactCounts) {
  for (const bool sliced : {false, true}) {
    const ScratchFolder folder;
    RunConfig config = mesh_config(folder, "exact");
    config.model.moe.capacity = 1.1;
    config.train.exact = !sliced;
    config.mesh.ep = sliced ? 1 : 2;
    config.mesh.etp = sliced ? 2 : 1;
    config.train.evaluate_every = 2;
    const RunResult exact = train_small(config);
    EXPECT_GT(exact.steps.back().at("moe/dropped").get<double>(), 0);
    config.run.directory = folder / "fixed";
    config.parallel.expert_rows = "fixed";
    config.pipeline.overlap = true;
    expect_same_run(train_small(config), exact);
  }
}

// Nodes of two ranks: padding crosses, and goes on inside.
TEST(ExpertRows, FixedOnesOnTwoLevelsHaveTheBitsOfExactCounts) {
  for (const bool sums : {false, true}) {
    const ScratchFolder folder;
    RunConfig config = mesh_config(folder, "exact");
    config.model.moe.capacity = 1.1;
    config.train.exact = !sums;
    config.parallel.sum_in_nodes = sums;
    config.mesh.ep = 4, config.mesh.ranks_per_node = 2;
    config.parallel.data_parallel = 4;
    config.train.batch = 16;
    config.train.evaluate_every = 2;
    const RunResult exact = train_small(config);
    EXPECT_GT(exact.steps.back().at("moe/dropped").get<double>(), 0);
    config.run.directory = folder / "fixed";
    config.parallel.expert_rows = "fixed";
    expect_same_run(train_small(config), exact);
  }
}

TEST(ExpertRows, SumsInNodesAreThoseOfHomeToRounding) {
  const ScratchFolder folder;
  RunConfig config = mesh_config(folder, "home");
  config.mesh.ep = 4, config.mesh.ranks_per_node = 2;
  config.parallel.data_parallel = 4;
  config.train.batch = 16;
  const RunResult home = train_small(config);
  config.run.directory = folder / "nodes";
  config.parallel.sum_in_nodes = true;
  config.pipeline.overlap = true;
  const RunResult nodes = train_small(config);
  ASSERT_EQ(nodes.steps.size(), home.steps.size());
  for (size_t i = 0; i < home.steps.size(); ++i) {
    for (const char* key : {"loss", "gradient_norm"}) {
      const double x = home.steps[i].at(key).get<double>();
      EXPECT_NEAR(nodes.steps[i].at(key).get<double>(), x, 2e-5 * std::abs(x)) << key << i;
    }
  }
  EXPECT_NE(nodes.tensors, home.tensors);  // another order of summation
}

// With a resumption in the middle that takes them back to the device.
TEST(OffloadKeys, ActivationsOnTheHostChangeNoBit) {
  for (const auto& [schedule, overlap] : {std::pair("1f1b", false),
                                          {"zb-h1", false},
                                          {"dualpipe", false},
                                          {"dualpipe", true},
                                          {"dualpipev", true},
                                          {"1f1b", true}}) {
    for (const char* recompute : {"none", "attention"}) {
      SCOPED_TRACE(cat(schedule, overlap ? " in parts, " : ", ", recompute));
      const ScratchFolder folder;
      RunConfig config = mesh_config(folder, "device");
      config.pipeline.schedule = schedule;
      config.pipeline.overlap = overlap;
      config.train.recompute = recompute;
      config.train.exact = true;
      config.parallel.zero_stage = 2;
      config.optim.schedule.total =
          config.train.steps * config.train.batch * config.train.sequence_length;
      const RunResult device = train_small(config);
      config.run.directory = folder / "host";
      config.offload.activations = true;
      const RunResult host = train_small(config);
      expect_same_run(host, device);
      const auto bytes = [](const RunResult& r, const char* key) {
        return r.steps.back().value(key, int64_t{0});
      };
      EXPECT_GT(bytes(host, "bytes/host/activations"), 0);
      EXPECT_EQ(bytes(device, "bytes/host/activations"), 0);
      EXPECT_LT(bytes(host, "bytes/activations"), bytes(device, "bytes/activations"));
      config.run.directory = folder / "broken";
      RunConfig first = config;
      first.train.steps = 2;
      train_small(first);
      config.offload.activations = false;
      expect_same_tensors(train_small(config), device);
    }
  }
}

int64_t bytes_of(const RunResult& r, const std::string& key) {
  return r.steps.back().value(key, int64_t{0});
}

// Masters, moments, the average and sums of gradients, under each stage that shares them out.
TEST(OffloadKeys, TheOptimiserOnTheHostChangesNoBit) {
  for (const int64_t stage : {1, 2, 3}) {
    for (const char* dtype : {"f32", "bf16"}) {
      for (const bool exact : {false, true}) {
        SCOPED_TRACE(cat("stage ", stage, " ", dtype, exact ? " exact" : ""));
        const ScratchFolder folder;
        RunConfig config = mesh_config(folder, "device");
        config.train.dtype = dtype;
        config.train.exact = exact;
        config.parallel.zero_stage = stage;
        config.optim.ema_decay = 0.9;
        config.optim.stochastic_rounding = config.train.dtype == "bf16";
        config.optim.schedule.total =
            config.train.steps * config.train.batch * config.train.sequence_length;
        const RunResult device = train_small(config);
        config.run.directory = folder / "host";
        config.offload.optimizer = true;
        const RunResult host = train_small(config);
        expect_same_run(host, device);
        for (const char* kind : {"moments", "gradients"}) {
          EXPECT_GT(bytes_of(host, cat("bytes/host/", kind)), 0) << kind;
        }
        EXPECT_EQ(bytes_of(host, "bytes/moments"), 0);
        EXPECT_EQ(bytes_of(host, "bytes/master_weights"), 0);
        EXPECT_GT(bytes_of(device, "bytes/moments"), 0);
        config.run.directory = folder / "broken";
        RunConfig first = config;
        first.train.steps = 2;
        train_small(first);
        config.offload.optimizer = false;
        expect_same_tensors(train_small(config), device);
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
