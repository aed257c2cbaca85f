#include "launcher/parity_command.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <set>
#include <sstream>

#include "nlohmann/json.hpp"
#include "tests/launcher/faulty_communicator.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

std::string write_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.train.batch = 8, config.train.micro_batch = 1;
  write_file(folder / "run.toml", dump_config(config, false));
  return folder / "run.toml";
}

struct Told {
  bool met = false;
  std::string lines, live, json;
};

// Behind the first line, which names a file.
void expect_lines_fit(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) EXPECT_LE(line.size(), 100u) << line;
}

// On a terminal.
Told told_by(const ParityOptions& options, const WrapWorld& wrap = nullptr) {
  const ScratchFolder folder;
  const std::string path = folder / "lines.txt";
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> lines(std::fopen(path.c_str(), "w"),
                                                              &std::fclose);
  std::ostringstream json;
  testing::internal::CaptureStderr();
  Told told;
  {
    ProgressLine progress(lines.get(), {.terminal = true, .columns = 200});
    told.met = run_parity(options, progress, json, wrap);
  }
  told.live = testing::internal::GetCapturedStderr();
  told.lines = read_file(path);
  told.json = json.str();
  return told;
}

TEST(ParityCommand, RunsEveryLayoutAndSaysWhatMisses) {
  const ScratchFolder folder;
  const std::string config = write_config(folder);
  ParityOptions options;
  options.config = config;
  options.layouts = "all";
  options.ranks = 2;
  const Told table = told_by(options);
  EXPECT_TRUE(table.met) << table.lines;
  EXPECT_EQ(table.json, "");
  for (const char* part :
       {"\ntp=2  ", "\ncp=2  ", "\npp=2  ", "\ndp_shard=2  ", "\n    sent: all_reduce ",
        "by formula the same", "\n    memory: weights ", "activations ", "layouts equal one"}) {
    EXPECT_NE(table.lines.find(part), std::string::npos) << part << "\n" << table.lines;
  }
  EXPECT_EQ(table.lines.find("layout "), table.lines.rfind("layout ")) << table.lines;
  expect_lines_fit(table.lines);
  options.layouts = "", options.ranks = 0;
  options.overrides = {"mesh.tp=2"};
  options.json = true;
  const Told json = told_by(options);
  EXPECT_TRUE(json.met);
  EXPECT_NE(json.lines.find("1 layout of 2 ranks beside one rank\nthe layout equals one rank"),
            std::string::npos)
      << json.lines;
  const auto list = nlohmann::json::parse(json.json);
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

// What was sent and held is told of one layout, of several, and of those that miss.
TEST(ParityCommand, DetailsAreOfAllLayouts) {
  const ScratchFolder folder;
  ParityOptions options;
  options.config = write_config(folder);
  options.overrides = {"mesh.tp=2"};
  const Told one = told_by(options);
  for (const char* part : {"    sent: all_reduce ", "by formula the same", "    memory: weights ",
                           "activations ", "data ", "other "}) {
    EXPECT_NE(one.lines.find(part), std::string::npos) << part << "\n" << one.lines;
  }
  expect_lines_fit(one.lines);
  options.overrides.clear();
  const std::string longer = "dp=2 zero=1 train.exact=true";
  write_file(folder / "layouts.txt", "tp=2\n" + longer + "\n");
  options.layouts = folder / "layouts.txt";
  const WrapWorld loses = [&](Communicator& world) -> std::unique_ptr<Communicator> {
    const PlantedFault fault{.where = "tp", .what = PlantedFault::What::twice};
    return std::make_unique<FaultyCommunicator>(world, fault);
  };
  const Told missed = told_by(options, loses);
  EXPECT_FALSE(missed.met);
  EXPECT_NE(missed.lines.find("\n" + longer + "\n         "), std::string::npos) << missed.lines;
  EXPECT_NE(missed.lines.find("  MISSED\n    sent: "), std::string::npos) << missed.lines;
  EXPECT_NE(missed.lines.find("\n    memory: weights "), std::string::npos) << missed.lines;
  expect_lines_fit(missed.lines);
}

// Before anything has run there is a line of what will.
TEST(ParityCommand, TellsAtOnceWhatItWillDoAndThenWhatRuns) {
  const ScratchFolder folder;
  write_file(folder / "layouts.txt", "dp=4\ndp=2 train.dtype=bf16\n");
  ParityOptions options;
  options.config = write_config(folder);
  options.layouts = folder / "layouts.txt";
  const WrapWorld fails = [](Communicator&) -> std::unique_ptr<Communicator> { fail("early"); };
  const std::string first = "parity of " + options.config + ": ";
  EXPECT_TRUE(told_by(options, fails).lines.starts_with(first));
  const Told told = told_by(options);
  EXPECT_TRUE(told.met) << told.lines;
  EXPECT_TRUE(told.lines.starts_with(first)) << told.lines;
  EXPECT_NE(told.lines.find(" parameters, 2 layers; 2 layouts of 2 to 4 ranks, each beside one"),
            std::string::npos)
      << told.lines;
  for (const char* part : {"running dp=4  1 of 2  4 ranks", "running dp=4  1 of 2  one rank\r",
                           "running dp=2 train.dtype=bf16  2 of 2  one rank beside f64, 4 seeds"}) {
    EXPECT_NE(told.live.find(part), std::string::npos) << part << "\n" << told.live;
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
  const Told table = told_by(options, wrap);
  EXPECT_FALSE(table.met);
  for (const char* part : {"dp=4    4      MISSED: the run ended with an error\n",
                           "a planted error", "dp=2    2      0 ", "1 of 2 layouts MISSED"}) {
    EXPECT_NE(table.lines.find(part), std::string::npos) << part << "\n" << table.lines;
  }
  options.json = true;
  const Told json = told_by(options, wrap);
  EXPECT_FALSE(json.met);
  const auto list = nlohmann::json::parse(json.json);
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
  const Told table = told_by(options);
  EXPECT_TRUE(table.met) << table.lines;
  EXPECT_NE(table.lines.find("note: numbers compared without moe.balance.global_batch"),
            std::string::npos)
      << table.lines;
  options.json = true;
  const Told json = told_by(options);
  EXPECT_TRUE(json.met);
  for (const auto& figure : nlohmann::json::parse(json.json)) EXPECT_NE(figure["met"], false);
}

}  // namespace
}  // namespace shoestring
