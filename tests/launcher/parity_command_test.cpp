#include "launcher/parity_command.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "nlohmann/json.hpp"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

TEST(ParityCommand, ReadsLayouts) {
  const auto layouts =
      parse_layouts("# comment\ntp=2 pp=2 schedule=zb-v  # why\n\nzero=1 train.exact=true\n", "f");
  ASSERT_EQ(layouts.size(), 2u);
  EXPECT_EQ(layouts[0].name, "tp=2 pp=2 schedule=zb-v");
  EXPECT_EQ(layouts[0].overrides,
            (std::vector<std::string>{"mesh.tp=2", "mesh.pp=2", "pipeline.schedule=zb-v"}));
  EXPECT_EQ(layouts[1].overrides,
            (std::vector<std::string>{"parallel.zero_stage=1", "train.exact=true"}));
  expect_error(ExitCode::usage, {"f:2: ", "\"shedule\"", "did you mean \"schedule\""},
               [] { parse_layouts("tp=2\nshedule=gpipe\n", "f"); });
  expect_error(ExitCode::usage, {"f:1: ", "\"tp\" is not KEY=VALUE"},
               [] { parse_layouts("tp\n", "f"); });
  expect_error(ExitCode::usage, {"f names no layout"}, [] { parse_layouts("# tp=2\n", "f"); });
}

std::string write_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.train.batch = 8, config.train.micro_batch = 1;
  write_file(folder / "run.toml", dump_config(config, false));
  return folder / "run.toml";
}

TEST(ParityCommand, RunsEveryLayoutAndSaysWhatMisses) {
  const ScratchFolder folder;
  const std::string config = write_config(folder);
  std::ostringstream table;
  ParityOptions options;
  options.config = config;
  options.layouts = "all";
  options.ranks = 2;
  EXPECT_TRUE(run_parity(options, table)) << table.str();
  for (const char* part : {"tp=2", "cp=2", "pp=2", "dp_shard=2", "sent: ", "by formula the same",
                           "memory: weights ", "activations ", "equal one rank"}) {
    EXPECT_NE(table.str().find(part), std::string::npos) << part << "\n" << table.str();
  }
  options.layouts = "";
  options.overrides = {"mesh.tp=2"};
  options.json = true;
  std::ostringstream json;
  EXPECT_TRUE(run_parity(options, json));
  const auto list = nlohmann::json::parse(json.str());
  EXPECT_EQ(list[0]["name"], "the config's own/loss");
  EXPECT_EQ(list[0]["met"], true);
  EXPECT_EQ(list[0]["goal"], 1e-6);
  std::set<std::string> names;
  for (const auto& figure : list) {
    names.insert(figure["name"]);
    EXPECT_TRUE(figure["met"].is_null() || figure["met"] == true) << figure;
  }
  for (const char* name :
       {"sent/all_gather", "sent_beside_formula/all_gather", "memory/gradients",
        "memory_below_forecast/gradients", "memory/activations", "memory/other"}) {
    EXPECT_TRUE(names.contains(std::string("the config's own/") + name)) << name;
  }
}

TEST(ParityCommand, ReadsAllConfigsBeforeItRuns) {
  const ScratchFolder folder;
  write_file(folder / "layouts.txt", "tp=2\nschedule=1f1b recompute=nothing\n");
  ParityOptions options;
  options.config = write_config(folder);
  options.layouts = folder / "layouts.txt";
  std::ostringstream out;
  expect_error(ExitCode::usage, {"recompute"}, [&] { run_parity(options, out); });
  EXPECT_EQ(out.str(), "");
}

}  // namespace
}  // namespace shoestring
