#include "io/json_check.h"

#include <gtest/gtest.h>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

void refuse(const std::string& text, const std::string& part) {
  expect_error(ExitCode::data, {"x.json", part}, [&] { check_json_object(text, "x.json"); });
}

TEST(JsonCheck, TakesObjectsOfAnyContent) {
  check_json_object(R"( {"a": [1, 2.5, null, true, "b"], "c": {"a": {}}} )", "x.json");
  check_json_object("{}", "x.json");
}

TEST(JsonCheck, RefusesWhatIsNoObject) {
  for (const char* text : {"", "  ", "[1]", "3", "null", "\"a\""})
    refuse(text, "not a JSON object");
  for (const char* text : {"{", "{\"a\"}", "{\"a\": 1", "{\"a\": 1}}", "{\"a\": \"\xff\"}",
                           "{\"a\": 1e999}", "{\"a\": nul}"}) {
    refuse(text, "not valid JSON");
  }
}

// In words, with the place, and without the bytes that a terminal obeys.
TEST(JsonCheck, SaysWhereTheTextBreaksOff) {
  const auto message = [](const std::string& text) -> std::string {
    try {
      check_json_object(text, "x.json");
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message("{\"a\": 1"), "x.json: not valid JSON: it ends too early, after 7 bytes");
  EXPECT_EQ(message("{\"a\": \"b"), "x.json: not valid JSON: it ends too early, after 8 bytes");
  EXPECT_EQ(message("{\"a\": nul}"),
            "x.json: not valid JSON at byte 10, line 1, at the end of: {\"a\": nul}");
  EXPECT_EQ(message("{\n\"a\"\n: 1e999}"),
            "x.json: not valid JSON at byte 13, line 3, a number that is too large, at the end of: "
            "{ \"a\" : 1e999");
  EXPECT_EQ(message("{\"a\xff"),
            "x.json: not valid JSON at byte 4, line 1, at the end of: {\"a\\xff");
  EXPECT_EQ(message("{\"a\x1b[2J\": 1}"),
            "x.json: not valid JSON at byte 4, line 1, at the end of: {\"a\\x1b");
  // Cut between characters.
  const std::string end = std::string(26, 'y') + "\" !";
  EXPECT_EQ(message("{\"a\": \"\u00e9" + end),
            "x.json: not valid JSON at byte 38, line 1, at the end of: " + end);
}

TEST(JsonCheck, RefusesEqualKeysOfOneObjectOnly) {
  refuse(R"({"a": 1, "b": 2, "a": 3})", "\"a\" twice");
  refuse(R"({"b": [{"c": 1, "c": 1}]})", "\"c\" twice");
  check_json_object(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})", "x.json");
}

TEST(JsonCheck, RefusesDepth) {
  auto nested = [](size_t depth) {
    return "{\"a\": " + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  check_json_object(nested(64), "x.json");
  refuse(nested(65), "deeper than 64");
  refuse(nested(1'000'000), "deeper than 64");
}

}  // namespace
}  // namespace shoestring
