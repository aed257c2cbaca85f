#include "io/json_lines.h"

#include <random>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

std::vector<std::string> parse(const std::string& text, size_t step = 1000,
                               JsonLinesOptions options = {.path = "f.jsonl"}) {
  std::vector<std::string> out;
  DocumentBuilder builder(100000, [&](TextPiece&& p) { out.push_back(p.text); });
  JsonLines lines(std::move(options), builder);
  for (size_t i = 0; i < text.size(); i += step) lines.feed(text.substr(i, step));
  lines.finish();
  return out;
}

TEST(JsonLines, TakesTheFieldOfEveryObject) {
  const std::string text =
      "{\"text\":\"one\"}\n"
      "  { \"id\" : [1, -2.5e+3, {\"text\": \"inner\", \"x\": [[], {}]}, true], \"text\" : \"two\" "
      ", "
      "\"z\": null }\r\n"
      "\n"
      "{\"a\\\"b\":\"}\", "
      "\"text\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e4\\u20ac\\ud83d\\ude00\"}\n"
      "{\"text\":null}\n"
      "{\"text\":\"last\",\"textual\":0}";
  for (size_t step : {1, 2, 5, 1000}) {
    EXPECT_EQ(parse(text, step),
              (std::vector<std::string>{
                  "one", "two", "\"\\/\b\f\n\r\tA\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "last"}));
  }
  EXPECT_EQ(parse("{\"body\":\"x\"}", 1, {.path = "f", .field = "body"}),
            std::vector<std::string>{"x"});
}

TEST(JsonLines, NamesTheLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{\"text\":\"a\"}\n[1]\n", "f.jsonl:2: byte 13: expected an object"},
      {"{\"text\":1}", "\"text\" is no string"},
      {"{\"text\":true}", "\"text\" is no string"},
      {"{\"text\":{}}", "\"text\" is no string"},
      {"{\"txt\":\"a\"}\n", "no field \"text\""},
      {"{\"text\":\"a\",\"text\":\"b\"}", "stands twice"},
      {"{\"text\":\"a", "ends inside an object"},
      {"{\"text\":\"a\nb\"}", "control character"},
      {"{\"text\":\"\\x\"}", "unknown escape"},
      {"{\"text\":\"\\u12g4\"}", "four hexadecimal digits"},
      {"{\"text\":\"\\ud800x\"}", "half a surrogate pair"},
      {"{\"text\":\"\\ude00\"}", "half a surrogate pair"},
      {"{\"a\":01,\"text\":\"\"}", "\"01\" is no value"},
      {"{\"a\":nul,\"text\":\"\"}", "\"nul\" is no value"},
      {"{\"a\":[1,],\"text\":\"\"}", "expected a value"},
      {"{\"a\":[1},\"text\":\"\"}", "brackets do not match"},
      {"{\"text\":\"a\",}", "expected a key"},
      {"{\"text\" \"a\"}", "expected \":\""},
      {"{\"text\":\"a\"} {", "expected the end of the line"},
      {"{\"a\":1\n,\"text\":\"\"}", "line ends inside"},
      {"{\"a\":" + std::string(2000, '[') + "}", "nested brackets"},
      {"{\"a\":" + std::string(2000, '1') + "}", "too long"},
  };
  for (const auto& [text, message] : cases) {
    for (size_t step : {1, 1000}) {
      expect_error(ExitCode::data, {"f.jsonl:", message}, [&, t = text] { parse(t, step); });
    }
  }
}

TEST(JsonLines, EndsMessagesWithTheCallersOptions) {
  const JsonLinesOptions options{
      .path = "f", .bad_text_hint = ", or do that", .field_hint = " (choose)"};
  expect_error(ExitCode::data, {"pair; repair the text, or do that"},
               [&] { parse("{\"text\":\"\\ud800x\"}", 1, options); });
  expect_error(ExitCode::data, {"no field \"text\" (choose)"}, [&] { parse("{}\n", 1, options); });
}

TEST(JsonLines, ReplacesLoneSurrogatesOnRequest) {
  EXPECT_EQ(parse("{\"text\":\"a\\ud800b\\udc00\\ud83d\"}", 1,
                  {.path = "f", .field = "text", .replace_bad = true}),
            std::vector<std::string>{"a\xef\xbf\xbd"
                                     "b\xef\xbf\xbd\xef\xbf\xbd"});
}

TEST(JsonLines, AnyDamageIsAnErrorOrOtherText) {
  const std::string line =
      "{\"id\":[1,2,{\"k\":\"v\"}],\"text\":\"some \\u20ac words\",\"n\":-1.5e3,\"b\":false}\n";
  std::mt19937 random(3);
  int errors = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = line + line;
    for (unsigned n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random() % 128);
          break;
        case 1:
          text.erase(at, 1 + random() % 5);
          break;
        default:
          text.insert(at, 1, "{}[]\",:\\\n0"[random() % 10]);
      }
    }
    try {
      EXPECT_LE(parse(text, 1 + random() % 20).size(), 4u);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      ++errors;
    }
  }
  EXPECT_GT(errors, 10000);
}

}  // namespace
}  // namespace shoestring
