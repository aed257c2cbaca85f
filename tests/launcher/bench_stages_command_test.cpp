#include "launcher/bench_stages_command.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "launcher/config.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

TEST(BenchStages, PrintsPiecesAndASplit) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.model.layers = 6;
  write_file(folder / "run.toml", dump_config(config));
  const StagesBench bench = bench_stages(
      {.config = folder / "run.toml", .overrides = {"mesh.pp=2", "pipeline.schedule=zb-v"}});
  const auto value = [&](std::string_view name) {
    const auto row = std::find_if(bench.rows.begin(), bench.rows.end(),
                                  [&](const Measurement& m) { return m.name == name; });
    return row == bench.rows.end() ? 0 : row->value;
  };
  EXPECT_GT(value("piece/embedding"), 0);
  EXPECT_GT(value("piece/dense_block"), 0);
  EXPECT_EQ(value("piece/sparse_block"), 0);
  EXPECT_GT(value("piece/head"), 0);
  EXPECT_GT(value("spread/head"), 0);
  EXPECT_EQ(value("spread/sparse_block"), 0);
  bool noisy = false;
  for (const Measurement& row : bench.rows)
    noisy |= row.name.starts_with("spread/") && row.value > 0.1;
  EXPECT_EQ(bench.note.empty(), !noisy) << bench.note;
  EXPECT_GE(value("split/measured"), 1);
  EXPECT_LE(value("split/measured"), value("split/even"));
  EXPECT_TRUE(bench.layers.starts_with("pipeline.layers = ["));
  EXPECT_EQ(std::count(bench.layers.begin(), bench.layers.end(), ','), 3) << bench.layers;
  ASSERT_EQ(bench.blocks.size(), 4u);
  for (const int64_t blocks : bench.blocks) {
    EXPECT_NE(bench.layers.find(std::to_string(blocks)), std::string::npos) << bench.layers;
  }
}

TEST(BenchStages, RefusesWhatHasNoStages) {
  const ScratchFolder folder;
  write_file(folder / "run.toml", dump_config(small_config(folder)));
  const std::string file = folder / "run.toml";
  expect_error(ExitCode::usage, {"mesh.pp = 1", "--set mesh.pp=N"},
               [&] { bench_stages({.config = file}); });
  expect_error(ExitCode::usage, {"--rounds is 0"},
               [&] { bench_stages({.config = file, .rounds = 0}); });
}

}  // namespace
}  // namespace shoestring
