#include "launcher/mesh_command.h"

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>

#include "launcher/command_line.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

using Json = nlohmann::json;

const std::string tiny = SHOESTRING_SOURCE_DIR "/configs/runs/tiny.toml";
const std::string mixtral = SHOESTRING_SOURCE_DIR "/configs/runs/mini-mixtral.toml";

TEST(MeshCommand, ShowsRanksStagesAndMicroBatches) {
  const std::string text = mesh_text({.config = tiny,
                                      .overrides = {"mesh.tp=2", "mesh.pp=2", "model.layers=3",
                                                    "train.batch=16", "train.micro_batch=1"},
                                      .ranks = 8});
  EXPECT_TRUE(text.starts_with("8 ranks: tp 2 x cp 1 x dp_shard 2 x dp_replicate 1 x pp 2\n"));
  EXPECT_NE(text.find("\n   7     0   1             0         1   0   1\n"), std::string::npos);
  EXPECT_NE(text.find("schedule 1f1b:\n  pp 0: stage 0 (2 blocks)\n  pp 1: stage 1 (1 block)\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("\n16 micro-batches a step, 8 a data rank\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\nZeRO stage 0: every data rank holds all"), std::string::npos) << text;
}

TEST(MeshCommand, OfSeveralProcessesIsRefused) {
  setenv("OMPI_COMM_WORLD_RANK", "1", 1);
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  setenv("OMPI_COMM_WORLD_LOCAL_RANK", "1", 1);
  expect_error(ExitCode::usage, {"2 were started", "--ranks 2"},
               [] { mesh_text({.config = tiny}); });
  for (const char* name :
       {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"}) {
    unsetenv(name);
  }
}

TEST(MeshCommand, SaysWhoIsIdleAndWhatIsOpen) {
  EXPECT_NE(mesh_text({.config = tiny, .overrides = {"mesh.dp_shard=8"}})
                .find("2 micro-batches a step, 1 a data rank but 6, which have none"),
            std::string::npos);
  const std::string open =
      mesh_text({.config = tiny, .overrides = {"mesh.pp=4", "pipeline.split=measured"}});
  EXPECT_NE(open.find("blocks split by measured cost when the run starts:\n  pp 0: stage 0\n"),
            std::string::npos)
      << open;
  const auto json = nlohmann::json::parse(mesh_text(
      {.config = tiny, .overrides = {"mesh.pp=4", "pipeline.split=measured"}, .json = true}));
  EXPECT_TRUE(json["stages"][0]["blocks"].is_null());
  EXPECT_NE(mesh_text({.config = tiny, .overrides = {"parallel.zero_stage=3", "mesh.tp=2"}})
                .find("\nZeRO stage 3: no effect, because no two ranks hold the same"),
            std::string::npos);
}

// A group that the schedule or the model has no use for has no row.
TEST(MeshCommand, GroupsWithoutUseAreLeftOut) {
  const auto groups_of = [](std::string config, std::vector<std::string> sets) {
    const std::string text = mesh_text({.config = std::move(config), .overrides = std::move(sets)});
    std::set<std::string> names;
    std::istringstream lines(text.substr(text.find("nodes\n") + 6));
    for (std::string line; std::getline(lines, line) && !line.empty();) {
      std::string name;
      std::istringstream(line) >> name;
      names.insert(name);
    }
    return names;
  };
  using Names = std::set<std::string>;
  EXPECT_EQ(groups_of(tiny, {"mesh.pp=2"}), (Names{"pp", "ends"}));
  EXPECT_EQ(groups_of(tiny, {"mesh.pp=2", "pipeline.schedule=dualpipe", "train.micro_batch=1"}),
            (Names{"pp", "ends", "mirror"}));
  EXPECT_EQ(groups_of(tiny, {"mesh.dp_shard=2"}), (Names{"dp_shard", "dp", "dp_cp", "stage"}));
  const Names sparse = groups_of(mixtral, {"mesh.dp_shard=2"});
  EXPECT_TRUE(sparse.contains("edp") && sparse.contains("edp_shard"));
}

// As training does, with the nearest legal ones.
TEST(MeshCommand, RefusesWithTheWordsOfTraining) {
  expect_error(ExitCode::usage, {"this layout is not possible", "no layout of 3 ranks", "start 2"},
               [] { mesh_text({.config = tiny, .overrides = {"mesh.tp=2"}, .ranks = 3}); });
}

TEST(MeshCommand, WithoutRanksTheyAreTheConfigs) {
  const std::string text = mesh_text(
      {.config = tiny, .overrides = {"mesh.tp=2", "parallel.data_parallel=2"}, .ranks = {}});
  EXPECT_TRUE(text.starts_with("4 ranks: tp 2 x")) << text;
  EXPECT_EQ(text.find("schedule"), std::string::npos) << text;
}

TEST(MeshCommand, JsonHoldsEveryRankAlsoOfMany) {
  const Json json = Json::parse(
      mesh_text({.config = tiny,
                 .overrides = {"mesh.pp=2", "pipeline.schedule=dualpipe", "mesh.ranks_per_node=8",
                               "train.batch=64", "train.micro_batch=1", "parallel.zero_stage=1"},
                 .ranks = 32,
                 .json = true}));
  EXPECT_EQ(json["ranks"], 32);
  EXPECT_EQ(json["nodes"], 4);
  EXPECT_EQ(json["axes"]["dp_shard"], 16);
  EXPECT_EQ(json["schedule"], "dualpipe");
  EXPECT_EQ(json["stages"].size(), 2u);
  EXPECT_EQ(json["stages"][0]["pp"], (std::vector<int>{0, 1}));  // both ranks hold both
  EXPECT_EQ(json["micro_batches_of_data_rank"], 4);
  EXPECT_EQ(json["zero_stage"], 1);
  ASSERT_EQ(json["places"].size(), 32u);
  EXPECT_EQ(json["places"][17]["node"], 2);
  EXPECT_EQ(json["places"][17]["pp"], 1);
  EXPECT_EQ(json["places"][17]["dp_shard"], 1);
  bool pp = false;
  for (const Json& group : json["groups"]) {
    if (group["name"] != "pp") continue;
    pp = true;
    EXPECT_EQ(group["ranks"], 2);
    EXPECT_EQ(group["nodes"], 2);
  }
  EXPECT_TRUE(pp);
}

TEST(MeshCommand, RefusesWhatTrainRefuses) {
  expect_error(ExitCode::usage, {"tp 2", "3 ranks"},
               [] { mesh_text({.config = tiny, .overrides = {"mesh.tp=2"}, .ranks = 3}); });
  expect_error(ExitCode::usage, {"heads"},
               [] { mesh_text({.config = tiny, .overrides = {"mesh.tp=5"}, .ranks = 5}); });
  const std::vector<std::string> none = {"mesh", tiny, "--ranks", "0"};
  expect_error(ExitCode::usage, {"--ranks"}, [&] { run_command_line(none); });
}

TEST(MeshCommand, IsPrinted) {
  testing::internal::CaptureStdout();
  const std::vector<std::string> words = {"mesh", tiny, "--set", "mesh.cp=2"};
  EXPECT_EQ(run_command_line(words), 0);
  EXPECT_TRUE(testing::internal::GetCapturedStdout().starts_with("2 ranks: tp 1 x cp 2"));
}

}  // namespace
}  // namespace shoestring
