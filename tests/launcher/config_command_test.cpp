#include "launcher/config_command.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/text.h"
#include "launcher/config.h"
#include "launcher/run_config.h"
#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

TEST(ConfigCommand, ShowPrintsWhatReadsBack) {
  std::string text = config_show({.file = "", .overrides = {"train.steps=5"}, .comments = true});
  auto config = parse_config<RunConfig>(text, "shown.toml");
  EXPECT_EQ(config.train.steps, 5);
  EXPECT_EQ(text.find("# hash " + config_hash(config) + "\n"), 0u);
}

TEST(ConfigCommand, ShowEndsWithTheNumberOfParameters) {
  const std::string file = SHOESTRING_SOURCE_DIR "/configs/models/deepseek-v3.toml";
  const std::string text = config_show({.file = file, .overrides = {}, .comments = false});
  EXPECT_NE(text.find("# parameters: 671,026,404,352 in all, 37,552,282,624 active for a token\n"),
            std::string::npos)
      << text.substr(text.size() - 300);
}

TEST(ConfigCommand, TablesMayBeAppendedToWhatShowPrints) {
  const std::string text = config_show({.file = "", .overrides = {}, .comments = true});
  auto config = parse_config<RunConfig>(
      text + "[[data.sources]]\nname = \"a\"\npath = \"a.h5\"\n[[stages]]\nbatch = 8\n", "my.toml");
  ASSERT_EQ(config.data.sources.size(), 1u);
  EXPECT_EQ(config.data.sources[0].path, "a.h5");
  ASSERT_EQ(config.stages.size(), 1u);
}

TEST(ConfigCommand, TheBinaryShowsTheSame) {
  BinaryResult result = run_binary({"config", "show", "--set", "train.steps=5"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(result.out,
            config_show({.file = "", .overrides = {"train.steps=5"}, .comments = false}));
}

TEST(ConfigCommand, MistakesAreUsageErrorsWithPositions) {
  BinaryResult result = run_binary({"config", "show", "--set", "train.stpes=5", "--set", "x"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err,
            "error: the configuration has 2 mistakes\n"
            "--set #1: unknown key 'stpes' in [train]; did you mean 'steps'?\n"
            "--set #2: 'x' is not of the form section.key=value\n");
}

TEST(ConfigCommand, DiffNamesKeys) {
  auto folder = std::filesystem::temp_directory_path() / cat("config_command_", ::getpid());
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "a.toml") << "[train]\nsteps = 3\n";
  std::ofstream(folder / "b.toml") << "[train]\nsteps = 4\n[[stages]]\nbatch = 4\n";
  std::string a = (folder / "a.toml").string(), b = (folder / "b.toml").string();
  EXPECT_EQ(config_diff(a, b),
            "stages.0.batch: (none) -> 4\nstages.0.from_tokens: (none) -> 0\n"
            "stages.0.weights: (none) -> []\ntrain.steps: 3 -> 4\n");
  EXPECT_EQ(config_diff(a, a), "no differences\n");
  EXPECT_EQ(run_binary({"config", "diff", a, b}).out, config_diff(a, b));
  std::filesystem::remove_all(folder);
}

TEST(ConfigCommand, SchemaAndDocsNameEveryKey) {
  auto schema = nlohmann::json::parse(run_binary({"config", "schema"}).out);
  std::string docs = run_binary({"config", "docs"}).out;
  RunConfig config;
  for (const FieldNode& section : fields_of(config).nodes) {
    ASSERT_TRUE(schema["properties"].contains(section.name)) << section.name;
    if (const auto* list = std::get_if<FieldList>(&section.content)) {
      for (const std::string& name : names_of(*list)) {
        EXPECT_TRUE(schema["properties"][section.name]["properties"].contains(name)) << name;
        // A table row, or the heading of a section or of an array of tables.
        const bool named = docs.find(cat("| `", name, "` |")) != std::string::npos ||
                           docs.find(cat("[", section.name, ".", name, "]")) != std::string::npos;
        EXPECT_TRUE(named) << name;
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
