#include "io/utf8_check.h"

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

std::string checked(const std::string& text, BadUtf8 policy, size_t step) {
  Utf8Check check("f.txt", policy, ", or do that");
  std::string out;
  for (size_t i = 0; i < text.size(); i += step) check.feed(text.substr(i, step), out);
  check.finish(out);
  EXPECT_EQ(check.position(), text.size());
  return out;
}

TEST(Utf8Check, GoodTextPassesInAnyDivision) {
  const std::string text =
      "plain ascii text, \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 "
      "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf end";
  for (size_t step = 1; step <= text.size(); ++step) {
    EXPECT_EQ(checked(text, BadUtf8::error, step), text);
  }
}

TEST(Utf8Check, ReplacesMaximalParts) {
  const std::string r = "\xef\xbf\xbd";
  // The example of the Unicode standard, table 3-8, and others.
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", r + r + r + r + r + "A" + r + r + "B"},
      {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", r + r + r + r + "A"},
      {"a\xe2\x82", "a" + r},
  };
  for (const auto& [bad, good] : cases) {
    for (size_t step = 1; step <= bad.size(); ++step) {
      EXPECT_EQ(checked(bad, BadUtf8::replace, step), good);
      EXPECT_EQ(checked(bad, BadUtf8::keep, step), bad);
    }
  }
}

TEST(Utf8Check, NamesFileAndByte) {
  for (size_t step : {1, 3, 100}) {
    expect_error(ExitCode::data,
                 {"f.txt: bad UTF-8 at byte 10: 0xc3", "; repair the text, or do that"},
                 [&] { checked("0123456\xe2\x82\xac\xc3(", BadUtf8::error, step); });
    expect_error(ExitCode::data, {"f.txt: bad UTF-8 at byte 3: 0xe2"},
                 [&] { checked("abc\xe2\x82", BadUtf8::error, step); });
  }
}

TEST(Utf8Check, KnowsUtf16AndUtf32) {
  using namespace std::string_literals;
  const std::string text = "H\xe9, good day";
  std::string little, big, wide;
  for (const char c : text) {
    little += {c, '\0'};
    big += {'\0', c};
    wide += {c, '\0', '\0', '\0'};
  }
  for (const std::string& bad :
       {little, big, wide, "\xff\xfe\xe9\x05\xdc\x05"s, "\xfe\xff\x05\xe9"s,
        "\xff\xfe\0\0\xe9\x05\0\0"s, "\0\0\xfe\xff\0\0\x05\xe9"s}) {
    expect_error(ExitCode::data, {"f.txt: this is UTF-16", "iconv"},
                 [&] { refuse_utf16(bad, "f.txt"); });
  }
  for (const std::string& good : {"H\xc3\xa9, good day"s, ""s, "a"s, "a\0"s, "one\0two\0three\0"s,
                                  "\0\0\0\0\0\0\0\0\0\0"s, "\xef\xbb\xbfmark"s}) {
    refuse_utf16(good, "f.txt");
  }
}

}  // namespace
}  // namespace shoestring
