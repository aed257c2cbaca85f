#include "launcher/config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launcher/run_config.h"
#include "tests/launcher/sample_config.h"

namespace shoestring {
namespace {

struct Small {
  int64_t n = 3;
  double x = 2;
  template <class V>
  void visit(V&& v) {
    v("n", n, Field{.help = "a count", .unit = "tokens", .min = 1});
    v("x", x, Field{.help = "a number"});
  }
};

// Arrays of tables that are empty by default.
struct Lists {
  struct Inner {
    std::vector<SampleStage> stages;
    template <class V>
    void visit(V&& v) {
      v("stages", stages, Field{.help = "By tokens"});
    }
  };
  Inner inner;
  template <class V>
  void visit(V&& v) {
    v("inner", inner, Field{.help = "inside"});
  }
};

// A config whose every field differs from its default.
SampleConfig filled() {
  SampleConfig c;
  c.title = "a \"quoted\"\ttitle\n with \\ and \x01 and \xc3\xa4";
  c.paths = {"a.txt", ""};
  c.sizes = {3};
  c.flags = {true, false};
  c.train.steps = 123456789012;
  c.train.exact = true;
  c.train.clip = 0.1 + 0.2;
  c.train.from = "checkpoints/1";
  c.train.limit = std::nullopt;
  c.train.flag = false;
  c.train.inner.rate = 1e-300;
  c.train.inner.betas = {std::numeric_limits<double>::infinity(), 1e22, 3};
  SampleStage stage;
  stage.tokens = 7;
  stage.inner.betas.clear();
  c.stages = {stage, SampleStage{.tokens = 8, .name = "second", .inner = {}}};
  return c;
}

TEST(Config, ReadingTellsWhereKeysWereSetLast) {
  const ConfigSource source = {.file = "", .overrides = {"train.steps=3", "train.steps=4"}};
  const auto config = read_config<RunConfig>(source);
  EXPECT_EQ(config.set_at, (KeyPositions{{"train.steps", "--set #2"}}));
}

TEST(Config, DumpReadsBackToTheSameBits) {
  for (bool comments : {false, true}) {
    SampleConfig original = filled();
    std::string text = dump_config(original, comments);
    auto copy = parse_config<SampleConfig>(text, "dump.toml");
    EXPECT_TRUE(diff_configs(original, copy).empty());
    EXPECT_EQ(dump_config(copy, comments), text);
    EXPECT_EQ(copy.title, original.title);
    EXPECT_EQ(copy.train.clip, original.train.clip);
    EXPECT_FALSE(copy.train.limit.has_value());
    EXPECT_EQ(copy.stages.size(), 2u);
    EXPECT_EQ(copy.train.inner.betas, original.train.inner.betas);
  }
}

TEST(Config, DumpOfNoTablesReadsBackToNoTables) {
  SampleConfig original;
  original.stages.clear();  // the default has one
  auto copy = parse_config<SampleConfig>(dump_config(original), "dump.toml");
  EXPECT_TRUE(copy.stages.empty());
}

// Whoever appends a table to a dump must not define the array a second time.
TEST(Config, DumpLeavesEmptyArraysToThoseWhoAddTables) {
  for (bool comments : {false, true}) {
    Lists none;
    const std::string text = dump_config(none, comments);
    EXPECT_EQ(text.find("[]"), std::string::npos) << text;
    EXPECT_EQ(text.find("\n# [[inner.stages]]\n# tokens = 100\n") != std::string::npos, comments);
    EXPECT_EQ(config_hash(parse_config<Lists>(text, "dump.toml")), config_hash(none));
    const auto more = parse_config<Lists>(text + "\n[[inner.stages]]\ntokens = 7\n", "more.toml");
    ASSERT_EQ(more.inner.stages.size(), 1u);
    EXPECT_EQ(more.inner.stages[0].tokens, 7);
  }
}

TEST(Config, DumpIsCanonical) {
  EXPECT_EQ(dump_config(Small{}), "n = 3\nx = 2.0\n");
  EXPECT_EQ(dump_config(Small{}, true),
            "# a count [tokens]; at least 1\nn = 3\n# a number\nx = 2.0\n");
}

TEST(Config, HashDependsOnValuesOnly) {
  SampleConfig a, b;
  EXPECT_EQ(config_hash(a), config_hash(b));
  EXPECT_EQ(config_hash(a).size(), 16u);
  b.stages[0].inner.rate = std::nextafter(b.stages[0].inner.rate, 1.0);
  EXPECT_NE(config_hash(a), config_hash(b));
  // Written in another order, with other spellings: the same config, the same hash.
  auto c = parse_config<SampleConfig>("sizes = [4]\ntrain.steps = 3e1", "c.toml");
  auto d = parse_config<SampleConfig>("[train]\nsteps = 30\n[[stages]]\n", "d.toml");
  d.sizes = {4};
  EXPECT_EQ(config_hash(c), config_hash(d));
}

TEST(Config, DiffNamesKeysAndValues) {
  SampleConfig a, b;
  b.train.dtype = "bf16";
  b.train.clip = 1;
  b.stages.push_back(SampleStage{.tokens = 5, .name = "x", .inner = {}});
  auto found = diff_configs(a, b);
  ASSERT_EQ(found.size(), 6u);
  EXPECT_EQ(found[0].key, "stages.1.inner.betas");
  EXPECT_EQ(found[0].left, "");
  EXPECT_EQ(found[4].key, "train.clip");
  EXPECT_EQ(found[4].right, "1.0");
  EXPECT_EQ(found[5].key, "train.dtype");
  EXPECT_EQ(found[5].left, "\"f32\"");
  EXPECT_EQ(found[5].right, "\"bf16\"");
}

TEST(Config, FlatFieldsAreSorted) {
  SampleConfig c;
  auto lines = flat_fields(fields_of(c));
  EXPECT_TRUE(std::is_sorted(lines.begin(), lines.end()));
  EXPECT_NE(std::find(lines.begin(), lines.end(), "train.inner.betas = [0.9, 0.95]"), lines.end());
}

}  // namespace
}  // namespace shoestring
