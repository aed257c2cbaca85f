#include "launcher/parity_layouts.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "launcher/config.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

TEST(ParityLayouts, AreWordsOfALine) {
  const auto layouts = parse_layouts(
      "# comment\ntp=2 pp=2 schedule=zb-v  # why\n\nzero=1 train.exact=true layers=[1, 3]\n", "f");
  ASSERT_EQ(layouts.size(), 2u);
  EXPECT_EQ(layouts[0].name, "tp=2 pp=2 schedule=zb-v");
  EXPECT_EQ(layouts[0].overrides,
            (std::vector<std::string>{"mesh.tp=2", "mesh.pp=2", "pipeline.schedule=zb-v"}));
  EXPECT_EQ(layouts[1].overrides,
            (std::vector<std::string>{"parallel.zero_stage=1", "train.exact=true",
                                      "pipeline.layers=[1,3]"}));
  EXPECT_EQ(layouts[1].places, (std::vector<std::string>{"f:4:1", "f:4:8", "f:4:25"}));
  expect_error(ExitCode::usage, {"f names no layout"}, [] { parse_layouts("# tp=2\n", "f"); });
}

std::string mistakes_of(std::string_view line) {
  std::string text;
  for (const ParityLayout& layout : parse_layouts(line, "f")) {
    for (const std::string& mistake : layout.mistakes) text += mistake + "\n";
  }
  return text;
}

TEST(ParityLayouts, EveryMistakeHasItsPlace) {
  const std::string text =
      mistakes_of("tp=2\n  shedule=gpipe tp\ntp=2,pp=2\ndp=2 tp=2 mesh.tp=4\n");
  for (const char* part : {"f:2:3: a layout has no \"shedule\"; did you mean \"schedule\"?",
                           "f:2:17: \"tp\" is not KEY=VALUE",
                           "f:3:1: \"tp=2,pp=2\" has a comma; assignments are parted",
                           "f:4:11: mesh.tp is set twice on this line"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  EXPECT_EQ(mistakes_of("layers=[1,3] tp=2\n"), "");
}

ParityOptions options_in(const ScratchFolder& folder, std::string_view layouts) {
  RunConfig config = small_config(folder);
  config.train.batch = 8, config.train.micro_batch = 1;
  write_file(folder / "run.toml", dump_config(config, false));
  write_file(folder / "layouts.txt", layouts);
  ParityOptions options;
  options.config = folder / "run.toml";
  options.layouts = folder / "layouts.txt";
  return options;
}

TEST(ParityLayouts, AllLinesAreCheckedBeforeAnyRuns) {
  const ScratchFolder folder;
  ParityOptions options =
      options_in(folder,
                 "tp=2\nrecompute=nothing zero=7\ndp=2 tp=3\ntp=1 zero=1\npp=2 chunks=4\n"
                 "dp=2 dp_shard=3\nshedule=1f1b foo.bar=1\ndp=2000\n");
  options.overrides = {"train.z_loss=0.001"};
  expect_error(
      ExitCode::usage,
      {"the layouts have mistakes\n", "layouts.txt:2:1: train.recompute",
       "layouts.txt:2:19: parallel.zero_stage", "layouts.txt:3:6: this layout is not possible",
       "layouts.txt:4:1: the layout amounts to one rank", "layouts.txt:5:6: pipeline.chunks",
       "layouts.txt:6:1: parallel.data_parallel = 2 but mesh.dp_shard",
       "layouts.txt:7:1: a layout has no", "layouts.txt:7:14: unknown key",
       "layouts.txt:8:1: the layout asks for 2000 ranks"},
      [&] { checked_layouts(options); });
  write_file(folder / "layouts.txt", "tp=2\ncp=2\n");
  EXPECT_EQ(checked_layouts(options).size(), 2u);
}

// Experts' axes add no ranks, which their name does not say.
TEST(ParityLayouts, ALayoutOfExpertsAloneIsToldWhatItLacks) {
  const ScratchFolder folder;
  const ParityOptions options = options_in(folder, "ep=4\n");
  expect_error(ExitCode::usage,
               {"layouts.txt:1:1: the layout amounts to one rank",
                "ep and etp share out the ranks "
                "of other axes and add none",
                "such as dp=4"},
               [&] { checked_layouts(options); });
}

TEST(ParityLayouts, OptionsWithoutEffectAreRefused) {
  const ScratchFolder folder;
  ParityOptions options = options_in(folder, "tp=2\n");
  options.ranks = 2;
  expect_error(ExitCode::usage, {"--ranks 2", "--layouts all"}, [&] { checked_layouts(options); });
  options.layouts = "";
  expect_error(ExitCode::usage, {"--ranks 2", "--layouts all", "--set mesh.tp=2"},
               [&] { checked_layouts(options); });
  options.ranks = 0;
  expect_error(ExitCode::usage, {"the config's own amounts to one rank", "--set mesh.tp=2"},
               [&] { checked_layouts(options); });
  options.layouts = "all";
  expect_error(ExitCode::usage, {"one rank", "--ranks"}, [&] { checked_layouts(options); });
  options.ranks = 4;
  for (const char* set : {"mesh.tp=2", "mesh.ep=2", "parallel.data_parallel=2"}) {
    options.overrides = {set};
    expect_error(ExitCode::usage, {cat("--set ", set, " has no effect"), "--layouts all"},
                 [&] { checked_layouts(options); });
  }
}

TEST(ParityLayouts, ProcessesAreRefused) {
  const ScratchFolder folder;
  const ParityOptions options = options_in(folder, "tp=2\n");
  setenv("OMPI_COMM_WORLD_RANK", "1", 1);
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  setenv("OMPI_COMM_WORLD_LOCAL_RANK", "1", 1);
  expect_error(ExitCode::usage, {"2 processes were started", "without mpirun"},
               [&] { checked_layouts(options); });
  for (const char* name :
       {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"}) {
    unsetenv(name);
  }
}

// The config's own axes, data ranks and pieces of the model do not stay beside a layout's.
TEST(ParityLayouts, AllOfSoManyRanksAreThatMany) {
  const ScratchFolder folder;
  ParityOptions options = options_in(folder, "");
  options.layouts = "all";
  options.overrides = {"mesh.pp=2", "pipeline.layers=[1,1]", "mesh.tp=2"};
  const auto own = checked_layouts(options);
  ASSERT_GT(own.size(), 3u);
  options.ranks = 2;
  options.overrides.pop_back();
  for (const auto& [layout, config] : checked_layouts(options)) {
    const MeshConfig& m = config.mesh;
    EXPECT_EQ(m.tp * m.cp * m.pp * m.dp_shard * m.dp_replicate, 2) << layout.name;
    EXPECT_EQ(config.pipeline.layers.size(), m.pp == 2 ? 2u : 0u);
  }
}

}  // namespace
}  // namespace shoestring
