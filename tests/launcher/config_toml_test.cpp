#include "launcher/config_toml.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "core/text.h"
#include "launcher/config.h"
#include "tests/launcher/sample_config.h"

namespace shoestring {
namespace {

// The whole message a text is refused with.
std::string complaint(const std::string& text) {
  try {
    parse_config<SampleConfig>(text, "a.toml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.what();
  }
  return "(accepted)";
}

std::string override_complaint(std::vector<std::string> overrides) {
  try {
    read_config<SampleConfig>({.file = "", .overrides = std::move(overrides)});
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.what();
  }
  return "(accepted)";
}

SampleConfig with(std::vector<std::string> overrides) {
  return read_config<SampleConfig>({.file = "", .overrides = std::move(overrides)});
}

class ConfigFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / cat("config_files_", ::getpid());
    std::filesystem::create_directories(folder_ / "sub");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return (folder_ / name).string();
  }
  std::string file_complaint(const std::string& path) {
    try {
      read_config<SampleConfig>({.file = path, .overrides = {}});
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::usage);
      return e.what();
    }
    return "(accepted)";
  }
  std::filesystem::path folder_;
};

TEST(ConfigToml, ReadsEveryType) {
  auto c = parse_config<SampleConfig>(
      "title = 'x'\npaths = ['a', 'b']\nsizes = [5, 6e2]\nflags = [true]\n[train]\nsteps = 3e9\n"
      "exact = true\nclip = 1\nfrom = 'here'\nlimit = 'none'\nflag = true\n"
      "inner = {rate = 0.25, betas = [1]}\n[[stages]]\ntokens = 1\n[[stages]]\n",
      "a.toml");
  EXPECT_EQ(c.title, "x");
  EXPECT_EQ(c.paths, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(c.sizes, (std::vector<int64_t>{5, 600}));
  EXPECT_EQ(c.flags, std::vector<bool>{true});
  EXPECT_EQ(c.train.steps, 3000000000);
  EXPECT_TRUE(c.train.exact);
  EXPECT_EQ(c.train.clip, 1.0);
  EXPECT_EQ(c.train.from, "here");
  EXPECT_FALSE(c.train.limit.has_value());
  EXPECT_EQ(c.train.flag, true);
  EXPECT_EQ(c.train.inner.rate, 0.25);
  ASSERT_EQ(c.stages.size(), 2u);
  EXPECT_EQ(c.stages[0].tokens, 1);
  EXPECT_EQ(c.stages[1].tokens, 100);
}

TEST(ConfigToml, UnknownKeysNameTheNearest) {
  EXPECT_EQ(complaint("[train]\n  stpes = 3\n"),
            "a.toml:2:3: unknown key 'stpes' in [train]; did you mean 'steps'?");
  EXPECT_EQ(complaint("steps = 3\n"),
            "a.toml:1:1: unknown key 'steps'; did you mean 'train.steps'?");
  EXPECT_EQ(complaint("[trian]\nsteps = 3\n"),
            "a.toml:1:2: unknown key 'trian'; did you mean 'train'?");
  EXPECT_EQ(complaint("[[stages]]\nzebra = 3\n"),
            "a.toml:2:1: unknown key 'zebra' in [stages.0]; the keys here are tokens, name, inner");
}

TEST(ConfigToml, WrongTypes) {
  EXPECT_EQ(complaint("[train]\nsteps = \"ten\"\n"),
            "a.toml:2:9: train.steps must be a whole number but is \"ten\"");
  EXPECT_EQ(complaint("[train]\nsteps = 2.5\n"),
            "a.toml:2:9: train.steps must be a whole number but is 2.5");
  EXPECT_EQ(complaint("[train]\nsteps = 1e300\n"),
            "a.toml:2:9: train.steps must be a whole number but is 1e+300");
  EXPECT_EQ(complaint("[train]\nexact = 1\n"),
            "a.toml:2:9: train.exact must be true or false but is 1");
  EXPECT_EQ(complaint("title = true\n"), "a.toml:1:9: title must be text but is true");
  EXPECT_EQ(complaint("title = 2020-01-01\n"),
            "a.toml:1:9: title must be text but is a date or time");
  EXPECT_EQ(complaint("[train.inner]\nrate = nan\n"),
            "a.toml:2:8: train.inner.rate must be a number but is nan");
  EXPECT_EQ(complaint("[train]\nclip = 'x'\n"),
            "a.toml:2:8: train.clip must be a number or \"none\" but is \"x\"");
  EXPECT_EQ(complaint("sizes = 3\n"), "a.toml:1:9: sizes must be a list of whole numbers but is 3");
  EXPECT_EQ(complaint("sizes = [1, 'b']\n"),
            "a.toml:1:13: sizes.1 must be a whole number but is \"b\"");
  EXPECT_EQ(complaint("train = 3\n"), "a.toml:1:9: train must be a table ([train]) but is 3");
  EXPECT_EQ(complaint("stages = 3\n"),
            "a.toml:1:10: stages must be a list of tables ([[stages]]) but is 3");
  EXPECT_EQ(complaint("stages = [3]\n"), "a.toml:1:11: stages.0 must be a table but is 3");
}

TEST(ConfigToml, RangesAndChoices) {
  EXPECT_EQ(complaint("[train]\nsteps = 0\n"),
            "a.toml:2:9: train.steps must be from 1 to 1000000000000 but is 0");
  EXPECT_EQ(complaint("[train.inner]\nrate = 1.5\n"),
            "a.toml:2:8: train.inner.rate must be from 0 to 1 but is 1.5");
  EXPECT_EQ(complaint("[train]\nclip = -1\n"),
            "a.toml:2:8: train.clip must be at least 0 but is -1");
  EXPECT_EQ(complaint("sizes = [4, 0]\n"), "a.toml:1:13: sizes.1 must be at least 1 but is 0");
  EXPECT_EQ(complaint("[train]\ndtype = \"bf61\"\n"),
            "a.toml:2:9: train.dtype must be one of f32, bf16 but is \"bf61\"; did you mean "
            "\"bf16\"?");
}

TEST(ConfigToml, BrokenTomlHasAPosition) {
  EXPECT_EQ(complaint("[train\n").substr(0, 27), "a.toml:1:7: not valid TOML:");
  // Whoever forgets quotes is told of them.
  for (const char* value : {"deepseek_v3", "fp8", "runs/a", "no_such"}) {
    const std::string text = complaint(std::string("# x = 1\ntitle = ") + value + "  # so\n");
    EXPECT_NE(text.find(std::string("; a text stands in quotes: title = \"") + value + "\""),
              std::string::npos)
        << text;
  }
  EXPECT_EQ(complaint("title = [1,\n").find("quotes"), std::string::npos);
  EXPECT_EQ(complaint("a = 1\na = 2\n").substr(0, 27), "a.toml:2:5: not valid TOML:");
  EXPECT_EQ(complaint("title = \"\xff\"\n").substr(0, 27), "a.toml:1:9: not valid TOML:");
}

TEST(ConfigToml, AllComplaintsAtOnceInOrder) {
  EXPECT_EQ(complaint("titel = 'x'\n[train]\nsteps = 0\nexact = 3\n"),
            "the configuration has 3 mistakes\n"
            "a.toml:1:1: unknown key 'titel'; did you mean 'title'?\n"
            "a.toml:3:9: train.steps must be from 1 to 1000000000000 but is 0\n"
            "a.toml:4:9: train.exact must be true or false but is 3");
}

TEST(ConfigToml, RulesBetweenFieldsHaveThePositionOfTheirKey) {
  EXPECT_EQ(complaint("[train]\ndtype = \"bf16\"\nexact = true\n"),
            "a.toml:3:9: train.exact: needs dtype = \"f32\"");
  EXPECT_EQ(complaint("[[stages]]\n[[stages]]\nname = ''\n"),
            "a.toml:3:8: stages.1.name: is empty");
  EXPECT_EQ(override_complaint({"train.exact=true", "train.dtype=bf16"}),
            "--set #1: train.exact: needs dtype = \"f32\"");
}

TEST(ConfigToml, OverridesWinAndNeedFewQuotes) {
  auto c =
      with({"train.steps=5", "train.steps=6", "train.dtype=bf16", "title=12", "train.from=a b.txt",
            "sizes=[7, 8]", "paths=[\"x\"]", "stages.0.tokens=9", "stages.0.inner.rate=1",
            "train.limit=none", "train.inner={rate = 0.125}", "train.flag=true"});
  EXPECT_EQ(c.train.steps, 6);
  EXPECT_EQ(c.train.dtype, "bf16");
  EXPECT_EQ(c.title, "12");
  EXPECT_EQ(c.train.from, "a b.txt");
  EXPECT_EQ(c.sizes, (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(c.paths, std::vector<std::string>{"x"});
  EXPECT_EQ(c.stages[0].tokens, 9);
  EXPECT_EQ(c.stages[0].inner.rate, 1.0);
  EXPECT_FALSE(c.train.limit.has_value());
  EXPECT_EQ(c.train.inner.rate, 0.125);
  EXPECT_EQ(c.train.flag, true);
  EXPECT_EQ(with({"title=\"quoted\""}).title, "quoted");
  EXPECT_EQ(with({"title=a=b"}).title, "a=b");
  EXPECT_EQ(with({"title=\"one\"\ntwo = 2"}).title, "\"one\"\ntwo = 2");
  EXPECT_EQ(with({"stages=[{tokens = 3}, {tokens = 4}]", "stages.1.tokens=5"}).stages[1].tokens, 5);
}

TEST(ConfigToml, OverridesAreChecked) {
  EXPECT_EQ(override_complaint({"train.steps=5", "train.stpes=5"}),
            "--set #2: unknown key 'stpes' in [train]; did you mean 'steps'?");
  EXPECT_EQ(override_complaint({"train.steps=ten"}),
            "--set #1: train.steps must be a whole number but is \"ten\"");
  EXPECT_EQ(override_complaint({"train.steps"}),
            "--set #1: 'train.steps' is not of the form section.key=value");
  EXPECT_EQ(override_complaint({"=3"}), "--set #1: '=3' is not of the form section.key=value");
  EXPECT_EQ(override_complaint({"train.steps.x=3"}),
            "--set #1: train.steps is a value, not a section: it has no 'x'");
  EXPECT_EQ(override_complaint({"train=3"}), "--set #1: train must be a table ([train]) but is 3");
  EXPECT_EQ(override_complaint({"stages.1.tokens=3"}),
            "--set #1: stages has no element '1': it has 1, counted from 0");
  EXPECT_EQ(override_complaint({"stages.0=3"}),
            "--set #1: stages.0 must be a table ([stages.0]) but is 3");
}

TEST_F(ConfigFiles, IncludesAreReadFirstAndLaterOnesWin) {
  write("sub/one.toml", "title = 'one'\n[train]\nsteps = 1\nclip = 1\n");
  write("sub/two.toml", "include = 'three.toml'\n[train]\nsteps = 2\n");
  write("sub/three.toml", "[[stages]]\ntokens = 3\n[[stages]]\n");
  std::string path =
      write("run.toml", "include = ['sub/one.toml', 'sub/two.toml']\n[train]\nclip = 'none'\n");
  auto c = read_config<SampleConfig>({.file = path, .overrides = {"stages.1.tokens=4"}});
  EXPECT_EQ(c.title, "one");
  EXPECT_EQ(c.train.steps, 2);
  EXPECT_FALSE(c.train.clip.has_value());
  ASSERT_EQ(c.stages.size(), 2u);
  EXPECT_EQ(c.stages[0].tokens, 3);
  EXPECT_EQ(c.stages[1].tokens, 4);
}

TEST_F(ConfigFiles, MistakesInIncludesNameTheIncludedFile) {
  std::string one = write("sub/one.toml", "\n  titel = 'one'\n");
  std::string path = write("run.toml", "include = 'sub/one.toml'\n");
  EXPECT_EQ(file_complaint(path), one + ":2:3: unknown key 'titel'; did you mean 'title'?");
}

TEST_F(ConfigFiles, BadIncludes) {
  std::string missing = write("run.toml", "include = ['nothing.toml']\n");
  EXPECT_EQ(file_complaint(missing), missing + ":1:12: cannot read '" +
                                         (folder_ / "nothing.toml").string() +
                                         "': No such file or directory");
  std::string circle = write("circle.toml", "include = 'sub/back.toml'\n");
  std::string back = write("sub/back.toml", "include = '../circle.toml'\n");
  EXPECT_EQ(file_complaint(circle), back + ":1:11: '" + circle + "' includes itself");
  std::string number = write("number.toml", "include = 3\n");
  EXPECT_EQ(file_complaint(number),
            number + ":1:11: include must be a path or a list of paths but is 3");
}

TEST_F(ConfigFiles, UnreadableFiles) {
  EXPECT_EQ(file_complaint((folder_ / "no.toml").string()),
            "cannot read '" + (folder_ / "no.toml").string() + "': No such file or directory");
  EXPECT_EQ(file_complaint(folder_.string()),
            "cannot read '" + folder_.string() + "': it is a directory");
  EXPECT_EQ(file_complaint(write("empty.toml", "")), "(accepted)");
}

}  // namespace
}  // namespace shoestring
