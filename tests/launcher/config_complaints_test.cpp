#include "launcher/config_complaints.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "tests/launcher/sample_config.h"

namespace shoestring {
namespace {

std::string thrown(const ConfigComplaints& complaints) {
  try {
    complaints.throw_if_any();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.what();
  }
  return "";
}

TEST(ConfigComplaints, NoneThrowsNothing) { EXPECT_EQ(thrown(ConfigComplaints()), ""); }

TEST(ConfigComplaints, OneAndMany) {
  ConfigComplaints c;
  c.add("a.toml:1:2", "x", "x is wrong");
  EXPECT_EQ(thrown(c), "a.toml:1:2: x is wrong");
  c.add("", "", "no position");
  EXPECT_EQ(thrown(c), "the configuration has 2 mistakes\na.toml:1:2: x is wrong\nno position");
}

TEST(ConfigComplaints, RulesStandAtTheKeyOrItsSection) {
  SampleConfig config;
  config.train.steps = 13;
  config.stages[0].name = "";
  ConfigComplaints c;
  c.was_set("train", "a.toml:1:1");
  c.validate(fields_of(config));
  EXPECT_EQ(thrown(c),
            "the configuration has 2 mistakes\na.toml:1:1: train.steps: must not be 13\n"
            "stages.0.name: is empty");
}

TEST(ConfigComplaints, NamesKeysAsWholeWords) {
  EXPECT_TRUE(names_key("model.heads = 5 does not divide hidden", "hidden"));
  EXPECT_TRUE(names_key("heads", "heads"));
  EXPECT_FALSE(names_key("model.kv_heads = 2", "heads"));
  EXPECT_FALSE(names_key("heads.size", "heads"));
  EXPECT_TRUE(by_override("--set #2"));
  EXPECT_FALSE(by_override("a.toml:1:1"));
}

// What a file leaves unset that could not be read is no second mistake.
TEST(ConfigComplaints, AnUnreadFileIsOneMistake) {
  SampleConfig config;
  config.train.steps = 13;
  ConfigComplaints c;
  c.add_unread("", "cannot read 'a.toml'");
  c.validate(fields_of(config));
  EXPECT_EQ(thrown(c), "cannot read 'a.toml'");
}

TEST(ConfigComplaints, AKeyIsComplainedOfOnce) {
  SampleConfig config;
  config.train.steps = 13;
  ConfigComplaints c;
  c.add("a.toml:1:1", "train.steps", "train.steps is odd");
  c.validate(fields_of(config));
  EXPECT_EQ(thrown(c), "a.toml:1:1: train.steps is odd");
}

}  // namespace
}  // namespace shoestring
