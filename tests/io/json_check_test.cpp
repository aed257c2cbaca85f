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
