#include "launcher/parity_command.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <sstream>

#include "nlohmann/json.hpp"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

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
  options.layouts = "", options.ranks = 0;
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

// A run that ends with an error is a miss of its layout; the others run.
TEST(ParityCommand, ALayoutThatFailsIsAMissAndOthersGoOn) {
  const ScratchFolder folder;
  write_file(folder / "layouts.txt", "dp=4\ndp=2\n");
  ParityOptions options;
  options.config = write_config(folder);
  options.layouts = folder / "layouts.txt";
  const WrapWorld wrap = [](Communicator& world) -> std::unique_ptr<Communicator> {
    if (world.size() == 4) fail("a planted error\nin two lines");
    return nullptr;
  };
  std::ostringstream table;
  EXPECT_FALSE(run_parity(options, table, wrap));
  for (const char* part : {"dp=4    4      MISSED: the run ended with an error\n",
                           "a planted error", "dp=2    2      0 ", "1 of 2 layouts MISSED"}) {
    EXPECT_NE(table.str().find(part), std::string::npos) << part << "\n" << table.str();
  }
  options.json = true;
  std::ostringstream json;
  EXPECT_FALSE(run_parity(options, json, wrap));
  const auto list = nlohmann::json::parse(json.str());
  const auto name = list[0]["name"].get<std::string>();
  EXPECT_TRUE(name.starts_with("dp=4/error/") && name.find("a planted error") != name.npos) << name;
  EXPECT_EQ(list[0]["met"], false);
  EXPECT_EQ(list[1]["name"], "dp=2/loss");
}

TEST(ParityCommand, ALossOfSlotsIsNotedAndLeftOut) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.batch = 8, config.train.micro_batch = 1;
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 16};
  config.model.moe.balance.global_batch = 0.1;
  write_file(folder / "run.toml", dump_config(config, false));
  ParityOptions options;
  options.config = folder / "run.toml";
  options.overrides = {"parallel.data_parallel=2"};
  std::ostringstream table;
  EXPECT_TRUE(run_parity(options, table)) << table.str();
  EXPECT_NE(table.str().find("note: numbers compared without moe.balance.global_batch"),
            std::string::npos)
      << table.str();
  options.json = true;
  std::ostringstream json;
  EXPECT_TRUE(run_parity(options, json));
  for (const auto& figure : nlohmann::json::parse(json.str())) EXPECT_NE(figure["met"], false);
}

}  // namespace
}  // namespace shoestring
