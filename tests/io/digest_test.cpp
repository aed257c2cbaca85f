#include "io/digest.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

// What `xxhsum -H2` prints.
TEST(Digest, IsXxh3) {
  EXPECT_EQ(digest_of(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(digest_of("abc"), "06b05ab6733a618578af5f94892f3950");
}

TEST(Digest, DoesNotDependOnHowTheBytesArrive) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * i);
  for (size_t step : {1u, 7u, 240u, 1024u, 5000u}) {
    Digest digest;
    for (size_t at = 0; at < text.size(); at += step) {
      digest.add(text.data() + at, std::min(step, text.size() - at));
    }
    EXPECT_EQ(digest.text(), digest_of(text));
    EXPECT_EQ(digest.text(), digest.text());
  }
  text[1234] ^= 1;
  EXPECT_NE(digest_of(text), Digest().text());
}

}  // namespace
}  // namespace shoestring
