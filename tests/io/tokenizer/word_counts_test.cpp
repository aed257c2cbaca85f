#include "io/tokenizer/word_counts.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(WordCountsTest, CountsPiecesWhateverTheThreads) {
  const std::string large(3 << 20, 'x');  // fills a batch every few documents
  for (const int threads : {1, 2, 5}) {
    WordCounter counter(SplitStep::from_pattern(patterns::gpt2), threads);
    int batches = 0;
    for (int i = 0; i < 1000; ++i) {
      batches += counter.add(i % 100 == 99 ? large : i % 2 == 0 ? "a b" : "b b");
    }
    EXPECT_EQ(counter.finish(), (WordCounts{{" b", 990}, {"a", 500}, {"b", 490}, {large, 10}}));
    EXPECT_EQ(counter.documents(), 1000);
    EXPECT_EQ(counter.bytes(), 990 * 3 + 10 * (3 << 20));
    EXPECT_GE(batches, 3);
  }
}

TEST(WordCountsTest, ErrorsOfTheThreadsReachTheCaller) {
  // Backtracking without end.
  WordCounter counter(SplitStep::from_pattern("(a+)+(a+)+(a+)+$"), 2);
  counter.add(std::string(200, 'a') + "b");
  EXPECT_THROW(counter.finish(), Error);
}

}  // namespace
}  // namespace shoestring
