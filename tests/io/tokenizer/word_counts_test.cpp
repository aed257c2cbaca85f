#include "io/tokenizer/word_counts.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(WordCountsTest, CountsPiecesWhateverTheThreads) {
  for (const int threads : {1, 2, 5}) {
    int left = 1000;
    int64_t documents = 0, bytes = 0;
    const WordCounts counts = count_words(
        SplitStep::from_pattern(patterns::gpt2),
        [&](std::string& text) {
          text = left % 2 == 0 ? "a b" : "b b";
          return left-- > 0;
        },
        threads,
        [&](int64_t d, int64_t b) {
          documents = d;
          bytes = b;
        });
    EXPECT_EQ(counts, (WordCounts{{" b", 1000}, {"a", 500}, {"b", 500}}));
    EXPECT_EQ(documents, 1000);
    EXPECT_EQ(bytes, 3000);
  }
}

TEST(WordCountsTest, ErrorsOfTheSourceReachTheCaller) {
  int left = 3;
  EXPECT_THROW(count_words(
                   SplitStep::from_pattern(patterns::gpt2),
                   [&](std::string& text) -> bool {
                     text = std::string(9 << 20, 'x');
                     if (left-- == 0) {
                       fail_data("the disk is gone");
                     }
                     return true;
                   },
                   2, [](int64_t, int64_t) {}),
               Error);
}

}  // namespace
}  // namespace shoestring
