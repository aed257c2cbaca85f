#include "io/tokenizer/json_part.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

std::string message_of(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    return error.what();
  }
  return "no error";
}

TEST(JsonPartTest, ReadsValues) {
  const JsonDocument document(
      R"({"a": {"b": "text", "n": null}, "list": [1, 2.5, -3, 1e30, 18446744073709551615],)"
      R"( "yes": true})",
      "f.json");
  const JsonPart root = document.root();
  EXPECT_TRUE(root.is_object());
  EXPECT_EQ(root.size(), 3u);
  EXPECT_EQ(root.member("a").text("b", "a"), "text");
  EXPECT_TRUE(root.member("a").member("b").is_text("text"));
  EXPECT_FALSE(root.member("a").member("b").is_text("tex"));
  EXPECT_TRUE(root.member("a").member("n").is_null());
  EXPECT_TRUE(root.member("x").member("y").is_null());
  EXPECT_TRUE(root.flag("yes", false));
  EXPECT_TRUE(root.flag("no", true));
  const JsonPart list = root.list("list", "the file");
  EXPECT_EQ(list[0].as_whole(), 1);
  EXPECT_EQ(list[2].as_whole(), -3);
  for (const size_t i : {1, 3, 4}) EXPECT_EQ(list[i].as_whole(), std::nullopt) << i;
  std::string keys;
  root.each([&](const std::string& key, JsonPart value) { keys += key + value.shown() + " "; });
  EXPECT_EQ(keys, "aan object lista list yestrue ");
}

TEST(JsonPartTest, MessagesNameTheFileAndTheKey) {
  const JsonDocument document(R"({"n": 1, "none": null})", "f.json");
  const JsonPart root = document.root();
  EXPECT_EQ(message_of([&] { root.required("none", "it"); }), "f.json: it has no \"none\"");
  EXPECT_EQ(message_of([&] { root.text("n", "it"); }), "f.json: \"n\" of it is no string");
  EXPECT_EQ(message_of([&] { root.list("n", "it"); }), "f.json: \"n\" of it is no list");
  EXPECT_EQ(message_of([&] { root.flag("n", true); }), "f.json: \"n\" is neither true nor false");
  EXPECT_EQ(message_of([] { JsonDocument("{", "g.json"); }).find("g.json: broken JSON"), 0u);
}

// Nothing recurses into what is nested without end.
TEST(JsonPartTest, DeepNestingIsShownShortly) {
  const size_t deep = 200'000;
  const JsonDocument document(std::string(deep, '[') + std::string(deep, ']'), "deep");
  EXPECT_EQ(document.root().shown(), "a list");
  EXPECT_EQ(document.root()[0].size(), 1u);
}

}  // namespace
}  // namespace shoestring
