#include "launcher/config_path.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "tests/launcher/sample_config.h"

namespace shoestring {
namespace {

TEST(ConfigPath, FindsValuesSectionsAndElements) {
  SampleConfig config;
  config.stages.resize(12);
  ConfigComplaints none;
  auto steps = find_key(fields_of(config), "train.steps", "", none);
  ASSERT_TRUE(steps);
  EXPECT_EQ(steps->key, "train.steps");
  EXPECT_EQ(std::get<int64_t*>(std::get<FieldPointer>(steps->node.content)), &config.train.steps);
  auto rate = find_key(fields_of(config), "stages.11.inner.rate", "", none);
  ASSERT_TRUE(rate);
  EXPECT_EQ(rate->key, "stages.11.inner.rate");
  EXPECT_EQ(std::get<double*>(std::get<FieldPointer>(rate->node.content)),
            &config.stages[11].inner.rate);
  auto train = find_key(fields_of(config), "train", "", none);
  ASSERT_TRUE(train);
  EXPECT_TRUE(std::holds_alternative<FieldList>(train->node.content));
  EXPECT_NO_THROW(none.throw_if_any());
}

TEST(ConfigPath, ComplainsOfWhatIsNotThere) {
  SampleConfig config;
  for (const char* key :
       {"", "train.", ".train", "train..steps", "stages.x.tokens", "stages.-1", "stages.1",
        "stages.99999999999999999999", "title.x", "stages.0.tokens.1"}) {
    ConfigComplaints complaints;
    EXPECT_FALSE(find_key(fields_of(config), key, "here", complaints)) << key;
    EXPECT_THROW(complaints.throw_if_any(), Error) << key;
  }
}

}  // namespace
}  // namespace shoestring
