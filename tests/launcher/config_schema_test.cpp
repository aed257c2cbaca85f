#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launcher/config.h"
#include "tests/launcher/sample_config.h"

namespace shoestring {
namespace {

using Json = nlohmann::json;

TEST(ConfigSchema, DescribesEveryField) {
  Json schema = Json::parse(config_schema<SampleConfig>("sample"));
  EXPECT_EQ(schema["title"], "sample");
  EXPECT_EQ(schema["additionalProperties"], false);
  const Json& top = schema["properties"];
  EXPECT_TRUE(top.contains("include"));
  EXPECT_EQ(top["title"]["type"], "string");
  EXPECT_EQ(top["title"]["default"], "untitled");
  EXPECT_EQ(top["sizes"]["items"]["minimum"], 1);
  EXPECT_EQ(top["sizes"]["default"], Json({1, 2}));
  const Json& train = top["train"]["properties"];
  EXPECT_EQ(train["steps"]["type"], "integer");
  EXPECT_EQ(train["steps"]["minimum"], 1);
  EXPECT_EQ(train["steps"]["maximum"], 1000000000000);
  EXPECT_EQ(train["dtype"]["enum"], Json({"f32", "bf16"}));
  EXPECT_EQ(train["clip"]["anyOf"][0]["type"], "number");
  EXPECT_EQ(train["clip"]["anyOf"][1]["const"], "none");
  EXPECT_EQ(train["inner"]["properties"]["rate"]["description"], "how fast [1/s]");
  EXPECT_EQ(top["stages"]["items"]["properties"]["tokens"]["default"], 100);
  EXPECT_EQ(top["stages"]["items"]["additionalProperties"], false);
}

}  // namespace
}  // namespace shoestring
