#include "io/hugging_face/config_keys.h"

#include <gtest/gtest.h>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

ConfigKeys keys_of(const std::string& json) { return ConfigKeys(json, "c.json"); }

TEST(ConfigKeys, ReadsValuesAndFallbacks) {
  const ConfigKeys keys = keys_of(
      R"({"n": 3, "x": 2.5, "whole": 7, "b": true, "t": "text", "none": null, "list": [4, 5],
          "words": ["a", "b"], "inner": {"n": 9}})");
  EXPECT_EQ(keys.whole("n", {0, 10}), 3);
  EXPECT_EQ(keys.whole_or("m", 8, {0, 10}), 8);
  EXPECT_EQ(keys.whole_or("none", 8, {0, 10}), 8);
  EXPECT_EQ(keys.number("x"), 2.5);
  EXPECT_EQ(keys.number("whole"), 7);
  EXPECT_EQ(keys.number_or("y", 1.5), 1.5);
  EXPECT_TRUE(keys.flag_or("b", false));
  EXPECT_EQ(keys.text_or("t", ""), "text");
  EXPECT_EQ(keys.text_or("u", "other"), "other");
  EXPECT_EQ(keys.wholes("list", {0, 9}), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(keys.wholes("n", {0, 9}), std::vector<int64_t>{3});
  EXPECT_TRUE(keys.wholes("none", {0, 9}).empty());
  EXPECT_EQ(keys.texts("words"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(keys.object("inner").whole("n", {0, 9}), 9);
  EXPECT_TRUE(keys.has("n"));
  EXPECT_FALSE(keys.has("none"));
  EXPECT_TRUE(keys.is_null("none"));
  EXPECT_FALSE(keys.is_null("nowhere"));
}

TEST(ConfigKeys, NamesFileKeyAndValue) {
  const ConfigKeys keys = keys_of(
      R"({"n": 300, "minus": -1, "big": 18446744073709551615, "x": "abc", "l": [1, "a"],
          "o": {"deep": false}, "half": 2.5})");
  auto refused = [&](const std::vector<std::string>& parts, auto&& read) {
    expect_error(ExitCode::data, parts, [&] { read(); });
  };
  refused({"c.json", "\"n\" is 300", "1 to 10"}, [&] { keys.whole("n", {1, 10}); });
  refused({"\"minus\" is -1"}, [&] { keys.whole("minus", {0, 10}); });
  refused({"\"big\" is 18446744073709551615"}, [&] { keys.whole("big", {0, INT64_MAX}); });
  refused({"\"half\" is 2.5"}, [&] { keys.whole("half", {0, 10}); });
  refused({"\"gone\" is missing"}, [&] { keys.whole("gone", {0, 10}); });
  refused({"\"x\" is \"abc\"", "number"}, [&] { keys.number("x"); });
  refused({"\"x\" is \"abc\"", "true or false"}, [&] { keys.flag_or("x", true); });
  refused({"\"n\" is 300", "text"}, [&] { keys.text_or("n", ""); });
  refused({"\"l\""}, [&] { keys.wholes("l", {0, 10}); });
  refused({"\"l\""}, [&] { keys.texts("l"); });
  refused({"\"o.deep\" is false"}, [&] { keys.object("o").number("deep"); });
  refused({"\"x\" is \"abc\"", "object"}, [&] { keys.object("x"); });
}

TEST(ConfigKeys, ShowsLongValuesInPart) {
  const ConfigKeys keys = keys_of("{\"n\": \"" + std::string(5000, 'x') + "\"}");
  const std::string message = expect_error(ExitCode::data, {"\"n\" is \"xxx", "..."}, [&] {
    keys.whole("n", {0, 1});
  });
  EXPECT_LT(message.size(), 300u);
}

}  // namespace
}  // namespace shoestring
