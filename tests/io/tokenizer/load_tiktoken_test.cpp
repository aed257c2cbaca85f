#include "io/tokenizer/load_tiktoken.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/tokenizer.h"

namespace shoestring {
namespace {

std::string to_base64(std::string_view bytes) {
  static constexpr char digits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += i + k > bytes.size() ? '=' : digits[bits >> (18 - 6 * k) & 63];
    }
  }
  return out;
}

// As many lines as a published vocabulary: the bytes, a few words, then fillers that no text has.
std::string vocabulary_of(int lines, const std::vector<std::string>& words) {
  std::string out;
  int rank = 0;
  const auto add = [&](std::string_view bytes) {
    append(out, to_base64(bytes), " ", rank++, "\n");
  };
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    add({&c, 1});
  }
  for (const std::string& word : words) {
    add(word);
  }
  while (rank < lines) {
    add(cat("\x01\x02", rank));
  }
  return out;
}

TEST(LoadTiktokenTest, MergesByTheRankOfTheJoinedBytes) {
  // "cd" + "e" and "c" + "de" both make "cde": whichever parts are there merge.
  const std::string lines = vocabulary_of(50256, {"de", "cd", "cde", "bc", "whole"});
  const Tokenizer tokenizer = Tokenizer::from_tiktoken(lines, "x.tiktoken");
  EXPECT_EQ(tokenizer.vocabulary_size(), 50257);
  EXPECT_EQ(tokenizer.end_of_text_id(), 50256);
  EXPECT_EQ(tokenizer.encode("cde"), (std::vector<int32_t>{258}));
  EXPECT_EQ(tokenizer.encode("xcde"), (std::vector<int32_t>{'x', 258}));
  EXPECT_EQ(tokenizer.encode("xcdx"), (std::vector<int32_t>{'x', 257, 'x'}));
  // A token that no merges lead to is found as a whole piece only.
  EXPECT_EQ(tokenizer.encode("whole"), (std::vector<int32_t>{260}));
  EXPECT_EQ(tokenizer.encode("wholes").size(), 6u);
  EXPECT_EQ(tokenizer.encode("<|endoftext|>"), (std::vector<int32_t>{50256}));
}

TEST(LoadTiktokenTest, KnowsThePublishedVocabulariesBySize) {
  const std::tuple<int, int, const char*> families[] = {{100256, 100257, "<|endoftext|>"},
                                                        {128000, 128001, "<|end_of_text|>"},
                                                        {151643, 151643, "<|endoftext|>"},
                                                        {199998, 199999, "<|endoftext|>"}};
  for (const auto& [lines, end, name] : families) {
    const Tokenizer tokenizer = Tokenizer::from_tiktoken(vocabulary_of(lines, {}), "x");
    EXPECT_EQ(tokenizer.end_of_text_id(), end);
    EXPECT_EQ(tokenizer.token_to_id(name), end);
    EXPECT_EQ(tokenizer.encode("12 don't").size(), 8u);
  }
  const Tokenizer llama = Tokenizer::from_tiktoken(vocabulary_of(128000, {}), "x");
  EXPECT_EQ(llama.vocabulary_size(), 128256);
  EXPECT_EQ(llama.bos_id(), 128000);
  EXPECT_EQ(llama.token_to_id("<|eot_id|>"), 128009);
}

TEST(LoadTiktokenTest, BrokenFiles) {
  const std::string good = vocabulary_of(50256, {});
  for (const std::string& bad :
       {std::string(), std::string("\n\n"), std::string("hello world\n"), std::string("IQ== x\n"),
        std::string("IQ==\n"), std::string("I Q== 0\n"), std::string("IQ== -1\n"),
        std::string("IQ== 99999999999\n"), std::string("IQ=== 0\n"), std::string("IQ== 0 1\n"),
        std::string("IQ== 0\nIg== 0\n"), std::string("IQ== 1\nIg== 0\n"),
        std::string("IQ== 0\nIg== 1\n"),  // of no published size
        good + "IQ== 50256\n", good.substr(good.find('\n') + 1) + "IQ== 50256\n"}) {
    try {
      Tokenizer::from_tiktoken(bad, "bad.tiktoken");
      ADD_FAILURE() << "accepted: " << bad.substr(0, 50);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      EXPECT_EQ(std::string(error.what()).find("bad.tiktoken"), 0u) << error.what();
    }
  }
}

}  // namespace
}  // namespace shoestring
