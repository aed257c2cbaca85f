#include "io/tokenizer/token_map.h"

#include <gtest/gtest.h>

#include "core/text.h"

namespace shoestring {
namespace {

TEST(TokenMapTest, FindsTokensByBytesAndKeepsHoles) {
  TokenBytes tokens;
  tokens.resize(1000);
  TokenMap map;
  EXPECT_EQ(map.find(tokens, "t1"), TokenMap::none);
  map.reset(1000);
  for (int32_t id = 1; id < 1000; id += 2) {
    tokens.set(id, cat("t", id));
    EXPECT_EQ(map.insert(tokens, id), id);
  }
  for (int32_t id = 0; id < 1000; ++id) {
    EXPECT_EQ(tokens.has(id), id % 2 == 1);
    EXPECT_EQ(map.find(tokens, cat("t", id)), id % 2 == 1 ? id : TokenMap::none);
  }
  EXPECT_EQ(tokens[2], "");
  EXPECT_EQ(tokens[3], "t3");
  EXPECT_FALSE(tokens.has(-1));
  EXPECT_FALSE(tokens.has(1000));
}

TEST(TokenMapTest, TheFirstOfEqualTokensStays) {
  TokenBytes tokens;
  tokens.resize(2);
  TokenMap map;
  map.reset(2);
  tokens.set(0, "same");
  tokens.set(1, "same");
  EXPECT_EQ(map.insert(tokens, 0), 0);
  EXPECT_EQ(map.insert(tokens, 1), 0);
}

}  // namespace
}  // namespace shoestring
