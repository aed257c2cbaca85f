#include "io/tokenizer/tokenizer_data.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

TokenizerData two_letters() {
  TokenizerData data;
  data.tokens.resize(3);
  data.piece_ids.reset(3);
  int32_t id = 0;
  for (const char* bytes : {"a", "b", "ab"}) {
    data.tokens.set(id, bytes);
    data.piece_ids.insert(data.tokens, id++);
  }
  data.merges.push_back({0, 1, 2, 0});
  return data;
}

TEST(TokenizerDataTest, DerivesTablesAndNamedTokens) {
  TokenizerData data = two_letters();
  data.added.push_back({.id = 7, .content = "<|endoftext|>", .special = true});
  data.added.push_back({.id = 2, .content = "ab"});
  const auto done = finish_tokenizer(std::move(data), "x");
  EXPECT_EQ(done->tokens.size(), 8);
  EXPECT_FALSE(done->tokens.has(5));
  EXPECT_EQ(done->pairs.find(0, 1)->id, 2);
  EXPECT_EQ(done->byte_ids['b'], 1);
  EXPECT_EQ(done->byte_ids['c'], TokenMap::none);
  EXPECT_EQ(done->end_of_text, 7);
  EXPECT_EQ(done->eos, 7);
  EXPECT_EQ(done->bos, std::nullopt);
  EXPECT_TRUE(done->is_special[7]);
  EXPECT_FALSE(done->is_special[2]);
}

TEST(TokenizerDataTest, RefusesContradictoryAddedTokens) {
  const std::vector<std::vector<AddedToken>> bad = {
      {{.id = 3, .content = "x"}, {.id = 3, .content = "y"}},
      {{.id = 3, .content = "x"}, {.id = 4, .content = "x"}},
      {{.id = 1, .content = "x"}},   // the vocabulary says "b"
      {{.id = 5, .content = "ab"}},  // the vocabulary says 2
      {{.id = -1, .content = "x"}},
      {{.id = 1 << 30, .content = "x"}},
  };
  for (const auto& added : bad) {
    TokenizerData data = two_letters();
    data.added = added;
    EXPECT_THROW(finish_tokenizer(std::move(data), "x"), Error) << added[0].content;
  }
  EXPECT_THROW(finish_tokenizer(TokenizerData(), "x"), Error);
}

}  // namespace
}  // namespace shoestring
