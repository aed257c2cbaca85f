#include "io/tokenizer/byte_chars.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(ByteCharsTest, EveryByteThereAndBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
  }
  const std::string chars = bytes_to_chars(all);
  EXPECT_EQ(chars_to_bytes(chars), all);
}

TEST(ByteCharsTest, KnownValues) {
  EXPECT_EQ(bytes_to_chars(" the\n"), "\u0120the\u010a");
  EXPECT_EQ(bytes_to_chars(std::string("\0\x7f\x80\xa0\xad\xe9", 6)),
            "\u0100\u0121\u0122\u0142\u0143\u00e9");
  EXPECT_EQ(chars_to_bytes("a b"), std::nullopt);  // a blank stands for no byte
  EXPECT_EQ(chars_to_bytes("\u0144"), std::nullopt);
  EXPECT_EQ(chars_to_bytes("\u2581x"), std::nullopt);
  EXPECT_EQ(chars_to_bytes("\xff"), std::nullopt);
}

}  // namespace
}  // namespace shoestring
