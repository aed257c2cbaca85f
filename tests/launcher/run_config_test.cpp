#include "launcher/run_config.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/check.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/config_warnings.h"
#include "tests/io/store_fixture.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

std::string complaint(const std::string& text) {
  try {
    parse_config<RunConfig>(text, "run.toml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.what();
  }
  return "(accepted)";
}

// A rule is no second mistake where the key that it speaks of could not be read.
TEST(RunConfig, OneMistakeIsOneComplaint) {
  EXPECT_EQ(complaint("[precision]\nrecipe = 'fp8'\nwatchdog = {every = 5}\n").find("mistakes"),
            std::string::npos);
  EXPECT_NE(complaint("[precision]\nwatchdog = {every = 5}\n").find("but recipe is bf16"),
            std::string::npos);
}

TEST(RunConfig, LatentAttentionHasNormsOfItsOwn) {
  const std::string latent = "[model]\nqk_norm = true\nmla = {kv_latent = 32}\n";
  EXPECT_EQ(complaint(latent),
            "run.toml:2:11: model.qk_norm: is true, but mla.kv_latent = 32 makes latent attention, "
            "which has norms of its latents instead; leave one of the two out");
}

TEST(RunConfig, OptionsOfAMeshThatDoNothingOrCannotBeAreRefused) {
  const auto says = [](const std::string& text, const std::vector<std::string>& parts) {
    const std::string got = complaint(text);
    for (const std::string& part : parts) EXPECT_NE(got.find(part), std::string::npos) << got;
  };
  const std::string mesh = "[mesh]\npp = 2\nep = 2\ndp_shard = 2\n";
  const std::string overlap = "[pipeline]\noverlap = true\n";
  EXPECT_EQ(complaint(mesh + overlap), "(accepted)");
  says(overlap,
       {"run.toml:2:11: pipeline.overlap", "mesh.pp = 1; set it to false, or mesh.pp to 2"});
  says("[mesh]\npp = 2\n" + overlap,
       {"pipeline.overlap", "mesh.ep and mesh.etp are 1; set it to false, or mesh.ep to 2"});
  says(mesh + overlap + "schedule = 'zb-h1'\n",
       {"pipeline.overlap", "\"zb-h1\" has no pairs", "or pipeline.schedule to 1f1b, "});
  const std::string fixed = "[parallel]\nexpert_rows = 'fixed'\n";
  const std::string capacity = "[model.moe]\nexperts = 4\nffn = 8\ncapacity = 1.5\n";
  EXPECT_EQ(complaint(mesh + fixed + capacity), "(accepted)");
  says(fixed, {"run.toml:2:15: parallel.expert_rows", "no rows travel"});
  says(mesh + fixed, {"run.toml:6:15: parallel.expert_rows", "model.moe.capacity = 0",
                      "set model.moe.capacity, "});
  const std::string sums = "[parallel]\nsum_in_nodes = true\n";
  EXPECT_EQ(complaint(mesh + "ranks_per_node = 2\n" + sums), "(accepted)");
  says(mesh + sums, {"run.toml:6:16: parallel.sum_in_nodes", "mesh.ranks_per_node = 0",
                     "or mesh.ranks_per_node to the "});
  says("[mesh]\nranks_per_node = 2\n" + sums, {"parallel.sum_in_nodes", "mesh.ep = 1"});
  says(mesh + "ranks_per_node = 2\n" + sums + "[train]\nexact = true\n",
       {"run.toml:7:16: parallel.sum_in_nodes", "train.exact = true"});
  const std::string offload = "[offload]\nactivations = true\n";
  EXPECT_EQ(complaint(mesh + offload), "(accepted)");
  says(offload, {"run.toml:2:15: offload.activations", "mesh.pp = 1"});
  EXPECT_EQ(complaint(mesh + offload + overlap), "(accepted)");
}

TEST(RunConfig, DefaultsAreValidAndRoundTrip) {
  EXPECT_EQ(complaint(""), "(accepted)");
  RunConfig config;
  std::string text = dump_config(config, true);
  EXPECT_TRUE(diff_configs(config, parse_config<RunConfig>(text, "dump.toml")).empty());
}

TEST(RunConfig, PublicKeysAreThere) {
  auto c = parse_config<RunConfig>(
      "device = 'cpu'\n[run]\ndirectory = 'd'\nseed = 3\n[train]\nsteps = 7\ndtype = 'bf16'\n"
      "[checkpoint]\nevery = 5\n",
      "run.toml");
  EXPECT_EQ(c.run.directory, "d");
  EXPECT_EQ(c.run.seed, 3);
  EXPECT_EQ(c.train.steps, 7);
  EXPECT_EQ(c.train.dtype, "bf16");
  EXPECT_EQ(c.checkpoint.every, 5);
}

TEST(RunConfig, ImpossibleBatches) {
  EXPECT_EQ(complaint("[train]\nbatch = 10\nmicro_batch = 4\n"),
            "run.toml:2:9: train.batch: the batch of 10 sequences is not a multiple of micro_batch "
            "= 4; the next one is 12");
  EXPECT_EQ(complaint("[train]\nbatch = 0\n"),
            "run.toml:2:9: train.batch must be from 1 to 1000000000 but is 0");
  EXPECT_EQ(complaint("[train]\nbatch = 8\nmicro_batch = 4\n[[stages]]\nmicro_batch = 3\n"),
            "run.toml:5:15: stages.0.micro_batch: the batch of 8 sequences is not a multiple of "
            "micro_batch = 3; the next one is 9");
}

std::string complaint_of_run(const std::string& text, std::vector<std::string> overrides = {}) {
  const ScratchFolder folder;
  const std::string file = folder / "run.toml";
  write_file(file, text + "[[data.sources]]\npath = 'a.h5'\n");
  try {
    read_config<RunConfig>({.file = file, .overrides = std::move(overrides)},
                           [](const RunConfig& run, Complaints& c) { run.validate_data(c); });
  } catch (const Error& e) {
    const std::string message = e.what();
    return message.starts_with(file) ? "run.toml" + message.substr(file.size()) : message;
  }
  return "(accepted)";
}

TEST(RunConfig, WhatDoesNotFitHasItsPlace) {
  const std::string model = "[model]\nmax_positions = 64\n";
  EXPECT_EQ(complaint_of_run(model + "[train]\nsequence_length = 65\n"),
            "run.toml:4:19: train.sequence_length: is 65, longer than model.max_positions = 64; "
            "raise the latter or shorten the sequences");
  EXPECT_EQ(complaint_of_run(model + "[train]\nsequence_length = 64\n"), "(accepted)");
  EXPECT_EQ(complaint_of_run("[train]\nsequence_length = 65\n", {"model.max_positions=64"})
                .find("--set #1: train.sequence_length"),
            0u);
  const std::string stage = "[train]\nsequence_length = 64\n[[stages]]\n";
  EXPECT_EQ(complaint_of_run(model + stage + "sequence_length = 128\n"),
            "run.toml:6:19: stages.0.sequence_length: is 128, longer than model.max_positions = "
            "64; raise the latter or shorten the sequences");
  EXPECT_EQ(complaint_of_run("[[stages]]\nweights = [1, 2]\n"),
            "run.toml:2:11: stages.0.weights: has 2 weights, but there is 1 source in "
            "data.sources");
}

TEST(RunConfig, ARampOfImpossibleBatches) {
  const std::string train = "[train]\nbatch = 8\nmicro_batch = 4\n";
  EXPECT_EQ(complaint(train + "[optim.ramp]\ntokens = [9, 99]\nsequences = [4, 6]\n"),
            "run.toml:6:17: optim.ramp.sequences.1: the batch of 6 sequences is not a multiple of "
            "micro_batch = 4; the next one is 8");
  EXPECT_EQ(complaint(train + "[optim.ramp]\ntokens = [9]\nsequences = [6]\n"
                              "[[stages]]\nmicro_batch = 2\n"),
            "(accepted)");
}

// Where --set broke a rule, the place is --set, whichever key of the file the rule belongs to.
TEST(RunConfig, WhatAnOverrideBreaksIsNotTheFilesMistake) {
  const std::string text = "[model]\nhidden = 64\nheads = 4\nkv_heads = 2\n";
  EXPECT_EQ(complaint_of_run(text), "(accepted)");
  const std::string message = complaint_of_run(text, {"model.heads=5"});
  EXPECT_NE(message.find("--set #1: model."), std::string::npos) << message;
  EXPECT_EQ(message.find("run.toml:"), std::string::npos) << message;
}

TEST(RunConfig, StagesAscend) {
  EXPECT_EQ(complaint("[[stages]]\nfrom_tokens = 5\n[[stages]]\nfrom_tokens = 5\n"),
            "run.toml:4:15: stages.1.from_tokens: must be above the previous stage's 5 but is 5");
  EXPECT_EQ(complaint("[[stages]]\nmtp_weight = 0.1\n"),
            "run.toml:2:14: stages.0.mtp_weight: needs prediction modules: set model.mtp.depth, or "
            "leave it out");
  EXPECT_EQ(complaint("[[stages]]\nbias_speed = 0\n"),
            "run.toml:2:14: stages.0.bias_speed: needs experts: set model.moe, or leave it out");
}

TEST(RunConfig, RulesBetweenFields) {
  EXPECT_EQ(complaint("[run]\ndirectory = ''\n"),
            "run.toml:2:13: run.directory: is empty; name a folder, for example runs/first");
  EXPECT_EQ(complaint("tokenizer = 'a.json'\n[train]\nsample_every = 5\n"),
            "run.toml:3:16: train.sample_prompt: is empty, but sample_every asks for samples");
  EXPECT_EQ(complaint("[train]\nsample_every = 5\nsample_prompt = 'It was'\n"),
            "run.toml:2:16: train.sample_every: is 5, but there is no tokenizer to make samples "
            "with; set tokenizer to the one that the stores were packed with, or sample_every = 0");
  EXPECT_EQ(complaint("[checkpoint]\nevery = 10\nkeep_every = 25\n"),
            "run.toml:3:14: checkpoint.keep_every: must be a multiple of every = 10 but is 25");
  EXPECT_EQ(complaint("[pipeline]\nlayers = [0, 2, 0, 2, 0]\n[mesh]\npp = 5\n"),
            "run.toml:2:10: pipeline.layers: gives piece 2 no block; only the first, which has the "
            "embedding, and the last, which has the head, may be without one");
  EXPECT_EQ(complaint("[pipeline]\nlayers = [2, 2]\nsplit = 'measured'\n[mesh]\npp = 2\n"),
            "run.toml:3:9: pipeline.split: is \"measured\", but `layers` says which blocks each "
            "piece has; leave one out");
}

TEST(RunConfig, RulesOfMeshes) {
  const std::string moe = "[model.moe]\nexperts = 4\nffn = 16\ncapacity = 1.5\n";
  EXPECT_EQ(complaint(moe + "[mesh]\ntp = 2\ncp = 2\n"), "(accepted)");
  EXPECT_EQ(complaint("[offload]\noptimizer = true\n"),
            "run.toml:2:13: offload.optimizer: is true, but parallel.zero_stage = 0: it moves what "
            "a rank owns of masters and moments; set zero_stage to 1, 2 or 3");
}

TEST(RunConfig, RefusesADeviceThatTheBuildLacks) {
  EXPECT_EQ(complaint("device = 'cuda'\n"),
            "run.toml:1:10: device: is \"cuda\", but there are no CUDA kernels yet; use \"cpu\"");
}

// A rank that waits for a slow disk may not be taken for dead.
TEST(RunConfig, CommunicationWaitsLongerThanACheckpointTakes) {
  const RunConfig config;
  EXPECT_GT(config.parallel.deadline, config.checkpoint.deadline);
  EXPECT_EQ(complaint("[parallel]\ndeadline = 60\n"),
            "run.toml:2:12: parallel.deadline: must be longer than checkpoint.deadline = 600 s, or "
            "ranks would give up one that waits for a slow disk, but is 60 s");
  EXPECT_EQ(complaint("[parallel]\ndeadline = 60\n[checkpoint]\ndeadline = 30\n"), "(accepted)");
}

TEST(RunConfig, EveryConfigOfTheTreeIsValid) {
  int files = 0;
  for (const char* folder : {"/configs/models", "/configs/runs"}) {
    for (const auto& entry :
         std::filesystem::directory_iterator(std::string(SHOESTRING_SOURCE_DIR) + folder)) {
      if (entry.path().extension() != ".toml") continue;
      EXPECT_NO_THROW(read_config<RunConfig>({.file = entry.path().string(), .overrides = {}}))
          << entry.path();
      ++files;
    }
  }
  EXPECT_GE(files, 30);
}

struct Published {
  const char* name;
  int64_t total, active;
};

// The counts the models were published with; active: with the embedding, without unused experts.
TEST(RunConfig, PublishedModelsHaveTheirSizes) {
  const Published models[] = {
      {"smollm2-135m", 134'515'008, 134'515'008},
      {"llama-3.2-1b", 1'235'814'400, 1'235'814'400},
      {"llama-3.1-8b", 8'030'261'248, 8'030'261'248},
      {"llama-3.1-70b", 70'553'706'496, 70'553'706'496},
      {"llama-3.1-405b", 405'853'388'800, 405'853'388'800},
      {"qwen2.5-0.5b", 494'032'768, 494'032'768},
      {"qwen2.5-1.5b", 1'543'714'304, 1'543'714'304},
      {"qwen2.5-3b", 3'085'938'688, 3'085'938'688},
      {"qwen2.5-7b", 7'615'616'512, 7'615'616'512},
      {"qwen2.5-14b", 14'770'033'664, 14'770'033'664},
      {"qwen2.5-32b", 32'763'876'352, 32'763'876'352},
      {"qwen2.5-72b", 72'706'203'648, 72'706'203'648},
      {"qwen3-0.6b", 596'049'920, 596'049'920},
      {"qwen3-1.7b", 1'720'574'976, 1'720'574'976},
      {"qwen3-4b", 4'022'468'096, 4'022'468'096},
      {"qwen3-8b", 8'190'735'360, 8'190'735'360},
      {"qwen3-14b", 14'768'307'200, 14'768'307'200},
      {"qwen3-32b", 32'762'123'264, 32'762'123'264},
      {"qwen3-30b-a3b", 30'532'122'624, 3'353'032'704},
      {"mixtral-8x7b", 46'702'792'704, 12'879'925'248},
      {"deepseek-v3", 671'026'404'352, 37'552'282'624},
      {"deepseek-v2-lite", 15'706'484'224, 2'661'150'208},
      {"moonlight-16b-a3b", 15'960'108'544, 2'914'774'528},
  };
  for (const Published& m : models) {
    const std::string file = cat(SHOESTRING_SOURCE_DIR "/configs/models/", m.name, ".toml");
    const ParamCounts counts =
        count_parameters(read_config<RunConfig>({.file = file, .overrides = {}}).model);
    EXPECT_EQ(counts.total, m.total) << m.name;
    EXPECT_EQ(counts.active, m.active) << m.name;
  }
}

// The recipe names the moments; optim.moments wins, and the resolved config says one thing.
TEST(RunConfig, MomentsComeFromTheRecipeOrTheOptimiser) {
  auto filled = [](const std::string& text) {
    auto config = parse_config<RunConfig>(text, "run.toml");
    const std::string warning = warning_of_moments(config);
    fill_in(config);
    EXPECT_EQ(warning_of_moments(config), "");
    EXPECT_EQ(config.precision.on() ? *config.precision.moments : "f32",
              config.precision.on() ? *config.optim.moments : "f32");
    return std::pair(*config.optim.moments, warning);
  };
  const std::string recipe = "[precision]\nrecipe = 'deepseek_v3'\n",
                    f32 = "[optim]\nmoments = 'f32'\n";
  EXPECT_EQ(filled(""), std::pair(std::string("f32"), std::string()));
  EXPECT_EQ(filled(recipe), std::pair(std::string("bf16"), std::string()));
  EXPECT_EQ(filled("[precision]\nrecipe = 'mxfp8'\n"),
            std::pair(std::string("f32"), std::string()));
  EXPECT_EQ(filled(recipe + "moments = 'f32'\n" + f32),
            std::pair(std::string("f32"), std::string()));
  const auto [type, warning] = filled(recipe + f32);
  EXPECT_EQ(type, "f32");
  EXPECT_EQ(warning,
            "optim.moments = \"f32\" wins over precision.moments = \"bf16\", which recipe "
            "deepseek_v3 sets; leave one of them out");
  EXPECT_NE(filled(recipe + "moments = 'bf16'\n" + f32).second.find("which is given, too"),
            std::string::npos);
}

}  // namespace
}  // namespace shoestring
