#include "io/document_stream.h"

#include <cmath>
#include <set>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(DocumentStream, TheHeldOutFractionIsMet) {
  for (double fraction : {0.0, 0.01, 0.3, 1.0}) {
    int count = 0;
    for (uint64_t hash = 0; hash < 20000; ++hash) count += is_held_out(hash, fraction);
    EXPECT_NEAR(count, 20000 * fraction, 5 * std::sqrt(20000 * fraction * (1 - fraction)));
  }
  // A larger fraction only adds documents.
  for (uint64_t hash = 0; hash < 1000; ++hash) {
    EXPECT_LE(is_held_out(hash, 0.1), is_held_out(hash, 0.2));
  }
}

TEST(DocumentStream, SplitsOnceAndReadsAcrossGaps) {
  ScratchFolder folder;
  std::vector<std::vector<int32_t>> documents;
  for (int d = 0; d < 60; ++d) documents.push_back(std::vector<int32_t>(1 + d % 5, d));
  make_store(folder / "a.h5", documents, plain_facts());
  const auto store = TokenStore::open(folder / "a.h5");
  std::set<int64_t> seen;
  for (Split split : {Split::train, Split::held_out}) {
    const DocumentStream stream(store, split, 0.4);
    std::vector<int32_t> expected;
    int64_t bytes = 0;
    for (int64_t d = 0; d < stream.documents(); ++d) {
      const int64_t id = stream.store_document(d);
      EXPECT_TRUE(seen.insert(id).second);
      EXPECT_EQ(is_held_out(store->document_hash(id), 0.4), split == Split::held_out);
      EXPECT_EQ(stream.document_start(d), static_cast<int64_t>(expected.size()));
      const auto& tokens = documents[static_cast<size_t>(id)];
      expected.insert(expected.end(), tokens.begin(), tokens.end());
      bytes += 3 * static_cast<int64_t>(tokens.size());
    }
    ASSERT_EQ(stream.tokens(), static_cast<int64_t>(expected.size()));
    EXPECT_EQ(stream.text_bytes(), bytes);
    for (int64_t first = 0; first < stream.tokens(); ++first) {
      const int64_t count = std::min<int64_t>(11, stream.tokens() - first);
      std::vector<int32_t> ids(static_cast<size_t>(count));
      stream.prefetch(first, count);
      stream.read(first, count, ids.data());
      for (int64_t i = 0; i < count; ++i) {
        EXPECT_EQ(ids[static_cast<size_t>(i)], expected[static_cast<size_t>(first + i)]);
      }
      const int64_t d = stream.document_at(first);
      EXPECT_LE(stream.document_start(d), first);
      EXPECT_GT(stream.document_start(d + 1), first);
    }
    expect_error(ExitCode::fault, {"of the stream"}, [&] {
      int32_t id = 0;
      stream.read(stream.tokens(), 1, &id);
    });
  }
  EXPECT_EQ(seen.size(), 60u);
}

TEST(DocumentStream, CountsStarts) {
  ScratchFolder folder;
  make_store(folder / "a.h5", {{1, 1, 1}, {2}, {3, 3}}, plain_facts());
  const DocumentStream stream(TokenStore::open(folder / "a.h5"), Split::train, 0);
  EXPECT_EQ(stream.starts_within(0, 2), 0);
  EXPECT_EQ(stream.starts_within(0, 3), 1);
  EXPECT_EQ(stream.starts_within(2, 5), 2);
  EXPECT_EQ(stream.starts_within(3, 3), 0);
  const DocumentStream empty(TokenStore::open(folder / "a.h5"), Split::train, 1);
  EXPECT_EQ(empty.tokens(), 0);
}

}  // namespace
}  // namespace shoestring
