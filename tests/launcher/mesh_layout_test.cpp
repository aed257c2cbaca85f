#include "launcher/mesh_layout.h"

#include <gtest/gtest.h>

#include "launcher/config.h"
#include "launcher/plan.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

RunConfig laid_out(int64_t tp, int64_t pp, int64_t dp) {
  RunConfig config;
  config.model.vocabulary = 256;
  config.mesh.tp = tp, config.mesh.pp = pp;
  config.parallel.data_parallel = dp;
  return config;
}

TEST(MeshLayout, RanksAreTheProductOfTheAxes) {
  EXPECT_EQ(ranks_of(laid_out(1, 1, 1)), 1);
  EXPECT_EQ(ranks_of(laid_out(2, 2, 3)), 12);
  RunConfig config = laid_out(2, 1, 1);
  config.mesh.dp_shard = 2, config.mesh.dp_replicate = 3;
  EXPECT_EQ(ranks_of(config), 12);
  EXPECT_EQ(mesh_of(config, 12).dp(), 6);
}

TEST(MeshLayout, ProcessesFillWhatTheAxesLeave) {
  EXPECT_EQ(mesh_of(laid_out(2, 2, 1), 16).dp_shard, 4);
  EXPECT_EQ(mesh_of(laid_out(2, 2, 4), 16).dp_shard, 4);
  expect_error(ExitCode::usage,
               {"asks for 12 ranks", "mesh.tp 2",
                "but there are 16; start 12, or leave "
                "parallel.data_parallel out"},
               [] { mesh_of(laid_out(2, 2, 3), 16); });
}

// Copies leave the shards open, and messages name the keys that are set.
TEST(MeshLayout, CopiesAreNotAllDataRanks) {
  RunConfig config = laid_out(1, 1, 1);
  config.mesh.dp_replicate = 2;
  EXPECT_EQ(ranks_of(config), 2);
  EXPECT_EQ(mesh_of(config, 2).dp_shard, 1);
  EXPECT_EQ(mesh_of(config, 8).dp_shard, 4);
  config.mesh.dp_shard = 3;
  expect_error(ExitCode::usage, {"asks for 6 ranks", "are 8; start 6, or set mesh.dp_shard = 0"},
               [&] { mesh_of(config, 8); });
}

TEST(MeshLayout, ZeroNeedsRanksThatHoldTheSame) {
  RunConfig config = laid_out(2, 2, 1);
  EXPECT_FALSE(has_use_for_zero(config, 1));
  EXPECT_TRUE(has_use_for_zero(config, 2));
  config.pipeline.schedule = "dualpipe";  // two copies of each stage
  EXPECT_TRUE(has_use_for_zero(config, 1));
  config.pipeline.schedule = "1f1b";
  config.model.moe.experts = 4;  // whole on both tensor ranks
  EXPECT_TRUE(has_use_for_zero(config, 1));
  config.mesh.ep = 2;
  EXPECT_FALSE(has_use_for_zero(config, 1));
  config.mesh.cp = 2;
  EXPECT_TRUE(has_use_for_zero(config, 1));
  config.mesh.cp = 1, config.offload.optimizer = true;
  EXPECT_TRUE(has_use_for_zero(config, 1));
}

// The first and the last stage may do without a block, but nobody knows before the start.
TEST(MeshLayout, AMeasuredSplitMayLeaveTheEndsEmpty) {
  RunConfig config = laid_out(1, 4, 1);
  config.model.layers = 2;
  const auto require = [&] { require_layout(config, 4, load_segments(config)); };
  expect_error(ExitCode::usage, {"4 stages, but it has layers for 2"}, require);
  config.pipeline.split = "measured";
  EXPECT_TRUE(split_is_open(config));
  require();
  config.model.layers = 1;
  expect_error(ExitCode::usage, {"4 stages, but it has layers for 3"}, require);
  config.pipeline.layers = {0, 1, 0, 0};
  EXPECT_FALSE(split_is_open(config));
}

TEST(MeshLayout, ContradictionsAreTold) {
  RunConfig config = laid_out(1, 1, 3);
  config.mesh.dp_shard = 2;
  expect_error(ExitCode::usage, {"parallel.data_parallel = 3", "dp_shard x dp_replicate = 2"},
               [&] { ranks_of(config); });
}

TEST(MeshLayout, TheModelTheBatchesAndTheScheduleMustAllowIt) {
  RunConfig config = laid_out(2, 2, 1);
  require_layout(config, 4, load_segments(config));
  config.mesh.tp = 3;
  expect_error(ExitCode::usage, {"this layout is not possible", "mesh.tp = 3", "nearest legal"},
               [&] { require_layout(config, 6, load_segments(config)); });
  config = laid_out(1, 2, 1);
  config.pipeline.schedule = "dualpipe";
  config.train.batch = 4, config.train.micro_batch = 2;
  expect_error(ExitCode::usage, {"dualpipe needs at least 4 micro-batches"},
               [&] { require_layout(config, 2, load_segments(config)); });
  config.pipeline.schedule = "no such order";
  expect_error(ExitCode::usage, {"no schedule is called"},
               [&] { require_layout(config, 2, load_segments(config)); });
  config.pipeline.schedule = "1f1b";
  config.pipeline.layers = {1, 2};  // of 4
  expect_error(ExitCode::usage, {"pipeline.layers holds 3 blocks", "model.layers = 4"},
               [&] { require_layout(config, 2, load_segments(config)); });
  config.pipeline.layers = {1, 3};
  require_layout(config, 2, load_segments(config));
  EXPECT_EQ(part_config_of(config, 2).blocks, (std::vector<int64_t>{1, 3}));
}

TEST(MeshLayout, MistakesOfThePipelineStandWhereTheyWereMade) {
  const auto complain = [](const std::string& pipeline, const std::vector<std::string>& parts) {
    expect_error(ExitCode::usage, parts, [&] {
      parse_config<RunConfig>("[mesh]\npp = 2\n[model]\nlayers = 4\n[pipeline]\n" + pipeline,
                              "f.toml");
    });
  };
  complain("chunks = 4\n", {"f.toml:6:", "pipeline.chunks: is 4", "\"1f1b\" takes none"});
  complain("schedule = \"zb-v\"\nchunks = 2\n", {"f.toml:7:", "pipeline.chunks: is 2"});
  complain("schedule = \"interleaved-1f1b\"\nchunks = 1\n",
           {"f.toml:7:", "pipeline.chunks: is 1", "at least 2"});
  complain("schedule = \"1f1d\"\n", {"f.toml:6:", "did you mean \"1f1b\"?"});
  complain("layers = [1, 2]\n",
           {"f.toml:6:", "pipeline.layers: holds 3 blocks", "model.layers = 4"});
  complain("layers = [1, 1, 2]\n", {"f.toml:6:", "pipeline.layers: names 3 pieces", "into 2"});
  expect_error(ExitCode::usage, {"mesh.pp = 1 cuts the model into 1; add --set mesh.pp=2"}, [] {
    parse_config<RunConfig>("[model]\nlayers = 4\n[pipeline]\nlayers = [2, 2]\n", "f.toml");
  });
  complain("schedule = \"zb-v\"\nlayers = [2, 2]\n", {"f.toml:7:", "names 2 pieces", "into 4"});
  const auto sound = parse_config<RunConfig>(
      "[mesh]\npp = 2\n[model]\nlayers = 6\n[pipeline]\nschedule = \"interleaved-1f1b\"\n"
      "chunks = 3\nlayers = [1, 1, 1, 1, 1, 1]\n",
      "f.toml");
  EXPECT_EQ(sound.pipeline.chunks, 3);
}

// Every line says where its keys were set; what nobody set has no place.
TEST(MeshLayout, ComplaintsSayWhereTheirKeysWereSet) {
  const ScratchFolder folder;
  const std::string file = folder / "run.toml";
  const auto complain = [&](const std::string& text, std::vector<std::string> sets, int64_t ranks,
                            const std::vector<std::string>& parts) {
    write_file(file, text);
    expect_error(ExitCode::usage, parts, [&] {
      auto config = read_config<RunConfig>({file, std::move(sets)});
      config.model.vocabulary = 256;
      const int64_t all = ranks > 0 ? ranks : ranks_of(config);
      require_layout(config, all, load_segments(config));
    });
  };
  const std::string three = "[mesh]\ntp = 3\n[model]\nheads = 8\n";
  complain(three, {"model.kv_heads=4"}, 0,
           {"this layout is not possible:\n" + file + ":2:6: mesh.tp = 3 does not divide the 8 ",
            " query heads [model.heads: " + file + ":4:9]\n",
            "4 key-value heads nor is a multiple of them [model.kv_heads: --set #1]\n",
            "columns of the mlp\n", "\nthe nearest legal layouts of 3 ranks"});
  complain("[mesh]\npp = 2\n",
           {"pipeline.schedule=dualpipe", "train.batch=2", "train.micro_batch=2"}, 0,
           {"\n" + file +
            ":2:6: mesh.pp = 2 with dualpipe needs at least 4 micro-batches on each "
            "data rank, but there is 1 (1 in a step, 1 data rank) [pipeline.schedule: --set #1, "
            "train.batch: --set #2"});
  complain(
      "[mesh]\npp = 2\n[pipeline]\nschedule = \"dualpipe\"\n"
      "[[stages]]\n[[stages]]\nfrom_tokens = 100\nbatch = 2\n",
      {"train.batch=16", "train.micro_batch=2"}, 0,
      {"[pipeline.schedule: ", "stages.1.batch: " + file + ":8:9"});
  complain("[mesh]\ndp_shard = 2\n", {"parallel.data_parallel=4"}, 0,
           {"--set #1: parallel.data_parallel = 4 but mesh.dp_shard x dp_replicate = 2",
            "[mesh.dp_shard: " + file + ":2:12]"});
  complain("[mesh]\ntp = 2\ndp_shard = 2\n", {}, 3,
           {file + ":2:6: the config asks for 4 ranks", "mesh.dp_shard: " + file + ":3:12"});
  complain("[parallel]\ndata_parallel = 4096\n", {"mesh.tp=32"}, 0,
           {file + ":2:17: parallel.data_parallel = 4096", "[mesh.tp: --set #1]"});
}

TEST(MeshLayout, SizesThatNoRunHasAreRefused) {
  const auto complain = [](const std::string& mesh, const std::string& text) {
    expect_error(ExitCode::usage, {text}, [&] { parse_config<RunConfig>("[mesh]\n" + mesh, "f"); });
  };
  complain("tp = 65537\n", "f:2:6: mesh.tp must be from 1 to 65536 but is 65537");
  complain("tp = 300\npp = 300\n", "f:2:6: mesh.tp = 300: tp x cp x dp_shard x dp_replicate x pp");
  RunConfig config = laid_out(1 << 20, 1 << 20, 1);
  config.mesh.cp = config.mesh.dp_shard = config.mesh.dp_replicate = 1 << 20;
  expect_error(ExitCode::usage, {"mesh.tp = 1048576", "65536 ranks"}, [&] { ranks_of(config); });
  expect_error(ExitCode::usage, {"65536 ranks"}, [&] { mesh_of(config, 4); });
  expect_error(ExitCode::usage, {"mesh.tp = 4000000000"},
               [] { ranks_of(laid_out(4000000000, 4000000000, 4096)); });
  expect_error(ExitCode::usage, {"parallel.data_parallel = 4096", "131072 ranks", "65536 ranks"},
               [] { ranks_of(laid_out(32, 1, 4096)); });
  EXPECT_EQ(ranks_of(laid_out(16, 1, 4096)), 65536);
}

TEST(MeshLayout, AdviceNamesTheKeysOfTheBatch) {
  RunConfig config = laid_out(1, 2, 1);
  config.pipeline.schedule = "dualpipe";
  config.train.batch = 4, config.train.micro_batch = 2;
  expect_error(ExitCode::usage,
               {"--set train.micro_batch=1", "--set train.batch=8", "--set pipeline.schedule=1f1b"},
               [&] { require_layout(config, 2, load_segments(config)); });
  config = laid_out(3, 1, 2);
  expect_error(ExitCode::usage, {"--set parallel.data_parallel=3"},
               [&] { require_layout(config, 6, load_segments(config)); });
}

TEST(MeshLayout, ExpertsMayBeCut) {
  RunConfig config = laid_out(2, 1, 1);
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 16};
  config.mesh.etp = 2;
  require_layout(config, 2, load_segments(config));
  config.model.moe.ffn = 15;
  expect_error(ExitCode::usage, {"mesh.etp = 2 does not divide the 15 columns of an expert"},
               [&] { require_layout(config, 2, load_segments(config)); });
}

TEST(MeshLayout, MuonNeedsWholeMatrices) {
  RunConfig config = laid_out(2, 1, 1);
  require_layout(config, 2, load_segments(config));
  config.optim.optimizer = "muon";
  expect_error(ExitCode::usage, {"mesh.tp = 2 cuts matrices", "adamw"},
               [&] { require_layout(config, 2, load_segments(config)); });
  config = laid_out(1, 2, 1);
  config.optim.optimizer = "muon";
  require_layout(config, 2, load_segments(config));
}

TEST(MeshLayout, ListsWhatIsLegal) {
  RunConfig config = laid_out(1, 1, 1);
  for (const MeshConfig& mesh : legal_meshes(config, 4)) {
    EXPECT_EQ(mesh.tp * mesh.cp * mesh.pp * mesh.dp(), 4);
    RunConfig own = config;
    own.mesh = mesh;
    require_layout(own, 4, load_segments(own));
  }
  EXPECT_GT(legal_meshes(config, 4).size(), 4u);
}

}  // namespace
}  // namespace shoestring
