#include "launcher/tokenize_command.h"

#include <gtest/gtest.h>

#include <sstream>

#include "core/check.h"

namespace shoestring {
namespace {

const TokenizeOptions gpt2{.tokenizer = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/gpt2.json"};

std::string tokenize(const TokenizeOptions& options, const std::string& text) {
  std::istringstream in(text);
  std::ostringstream out;
  EXPECT_EQ(run_tokenize(options, in, out), 0);
  return out.str();
}

std::string detokenize(const TokenizeOptions& options, const std::string& text) {
  std::istringstream in(text);
  std::ostringstream out;
  EXPECT_EQ(run_detokenize(options, in, out), 0);
  return out.str();
}

TEST(TokenizeCommandTest, OneListALine) {
  const std::string text =
      "The night\n\n<|endoftext|>\nGr\xC3\xB6\xC3\x9F"
      "e\r\nno end";
  const std::string lists = tokenize(gpt2, text);
  EXPECT_EQ(std::count(lists.begin(), lists.end(), '\n'), 5);
  EXPECT_NE(lists.find("\n[]\n[1000]\n["), std::string::npos) << lists;
  EXPECT_EQ(detokenize(gpt2, lists), text + "\n");
}

TEST(TokenizeCommandTest, BadTextNamesItsLine) {
  try {
    tokenize(gpt2, "fine\nbad \xFF\n");
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_EQ(std::string(error.what()).find("line 2 of the input: bad UTF-8 at byte 4: 0xff"), 0u)
        << error.what();
  }
}

TEST(TokenizeCommandTest, WholeInputs) {
  TokenizeOptions whole = gpt2;
  whole.whole = true;
  for (const std::string text : {"", "a\nb\n\n c", "<|endoftext|>\n"}) {
    const std::string lists = tokenize(whole, text);
    EXPECT_EQ(std::count(lists.begin(), lists.end(), '\n'), 1);
    EXPECT_EQ(detokenize(whole, lists), text);
  }
  whole.special_as_text = true;
  EXPECT_EQ(tokenize(whole, "<|endoftext|>").find("1000"), std::string::npos);
}

TEST(TokenizeCommandTest, BadIdsNameTheirLine) {
  for (const std::string bad : {"[1, 2", "{}", "[1.5]", "[-1]", "[\"1\"]", "[99999]",
                                "[9999999999999999999]", "", "[1] [2]"}) {
    try {
      detokenize(gpt2, "[1, 2]\n" + bad + "\n");
      ADD_FAILURE() << "accepted " << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      EXPECT_EQ(std::string(error.what()).find("line 2 of the input"), 0u) << error.what();
    }
  }
  EXPECT_THROW(tokenize({.tokenizer = "/nowhere"}, "a"), Error);
}

}  // namespace
}  // namespace shoestring
