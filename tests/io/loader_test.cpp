#include "io/loader.h"

#include <algorithm>
#include <set>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

using Documents = std::vector<std::vector<int32_t>>;
using Ids = std::vector<int32_t>;

// Documents of 1 to 40 tokens with recognisable ids.
Documents some_documents(int count, int salt = 0) {
  Documents out;
  for (int d = 0; d < count; ++d) {
    Ids ids;
    for (int i = 0; i < 1 + (d * 7 + salt) % 40; ++i) ids.push_back((d * 41 + i + salt) % 999 + 1);
    ids.push_back(0);
    out.push_back(ids);
  }
  return out;
}

struct Scene {
  ScratchFolder folder;
  LoaderConfig config;
  TokenStores stores;
  void add(const std::string& name, const Documents& documents, double weight,
           const TokenStoreFacts& facts = plain_facts()) {
    make_store(folder / name, documents, facts);
    config.sources.push_back(
        {.name = name, .path = folder / name, .weight = weight, .held_out = {}});
    stores.push_back(TokenStore::open(folder / name));
  }
  Loader loader(std::vector<LoadSegment> segments, uint64_t seed = 1) const {
    return Loader(config, stores, std::move(segments), seed);
  }
};

LoadSegment segment(int64_t length, int64_t sequences, int64_t micro_batches,
                    int64_t from_tokens = 0) {
  return {.from_tokens = from_tokens,
          .length = length,
          .sequences = sequences,
          .micro_batches = micro_batches,
          .weights = {}};
}

void expect_same(const MicroBatch& a, const MicroBatch& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.positions, b.positions);
  EXPECT_EQ(a.first_key, b.first_key);
  EXPECT_EQ(a.sample_ids, b.sample_ids);
  EXPECT_EQ(a.sources, b.sources);
  EXPECT_EQ(a.valid_labels, b.valid_labels);
}

Ids part(const Ids& v, size_t row) {
  return Ids(v.begin() + static_cast<long>(row * 6), v.begin() + static_cast<long>(row * 6 + 6));
}

// 13 tokens: two rows of 6 and the label of the last.
const Documents hand_made = {{11, 12, 13, 0}, {21, 0}, {0}, {31, 32, 33, 34, 35, 36}};

// An end mark is the last label of its document and the first input of the next.
TEST(Loader, RowsOfHandMadeDocuments) {
  Scene s;
  s.config.held_out = 0;
  s.add("a", hand_made, 1);
  const MicroBatch rows = s.loader({segment(6, 2, 1)}).micro_batch(0, 2);
  const size_t at = rows.tokens[0] == 11 ? 0 : 1;  // the order of the two is a matter of the seed
  const size_t other = 1 - at;
  EXPECT_EQ(part(rows.tokens, at), (Ids{11, 12, 13, 0, 21, 0}));
  EXPECT_EQ(part(rows.labels, at), (Ids{12, 13, 0, 21, 0, 0}));
  EXPECT_EQ(part(rows.positions, at), (Ids{0, 1, 2, 0, 1, 0}));
  EXPECT_EQ(part(rows.first_key, at), (Ids{0, 0, 0, 3, 3, 5}));
  EXPECT_EQ(part(rows.tokens, other), (Ids{0, 31, 32, 33, 34, 35}));
  EXPECT_EQ(part(rows.labels, other), (Ids{31, 32, 33, 34, 35, 36}));
  EXPECT_EQ(part(rows.positions, other), (Ids{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(part(rows.first_key, other), (Ids{0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(rows.document_start, rows.first_key);
  EXPECT_EQ(rows.valid_labels, 12);
  EXPECT_EQ(s.loader({segment(6, 2, 1)}).valid_labels(0, 2), 12);

  s.config.cross_document_attention = true;
  const MicroBatch crossing = s.loader({segment(6, 2, 1)}).micro_batch(0, 2);
  EXPECT_EQ(crossing.labels, rows.labels);
  EXPECT_EQ(part(crossing.positions, 0), (Ids{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(part(crossing.first_key, 0), (Ids{0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(crossing.document_start, rows.document_start);
}

// Without end marks nothing tells where the next document begins: its first token is nobody's
// label.
TEST(Loader, RowsOfDocumentsWithoutEndMarks) {
  Scene s;
  s.config.held_out = 0;
  TokenStoreFacts facts = plain_facts();
  facts.end_of_document = -1;
  s.add("a", hand_made, 1, facts);
  const MicroBatch rows = s.loader({segment(6, 2, 1)}).micro_batch(0, 2);
  const size_t at = rows.tokens[0] == 11 ? 0 : 1;
  const size_t other = 1 - at;
  EXPECT_EQ(part(rows.labels, at), (Ids{12, 13, 0, -1, 0, -1}));
  EXPECT_EQ(part(rows.positions, at), (Ids{0, 1, 2, 3, 0, 1}));
  EXPECT_EQ(part(rows.first_key, at), (Ids{0, 0, 0, 0, 4, 4}));
  EXPECT_EQ(part(rows.labels, other), (Ids{-1, 32, 33, 34, 35, 36}));
  EXPECT_EQ(part(rows.positions, other), (Ids{0, 0, 1, 2, 3, 4}));
  EXPECT_EQ(part(rows.first_key, other), (Ids{0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(rows.valid_labels, 9);
  EXPECT_EQ(s.loader({segment(6, 2, 1)}).valid_labels(0, 2), 9);
}

TEST(Loader, AnyRankCountAndOrderGiveTheSameRows) {
  Scene s;
  s.add("a", some_documents(300), 2);
  s.add("b", some_documents(200, 5), 1);
  const std::vector<LoadSegment> plan = {segment(32, 2, 5), segment(32, 2, 7, 2000)};
  const Loader loader = s.loader(plan);
  for (int64_t step : {9, 0, 3, 8, 1}) {
    const Batch whole = loader.batch(step, 0, 1);
    ASSERT_EQ(whole.micro.size(), static_cast<size_t>(whole.global_micro_batches));
    int64_t labels = 0;
    for (const MicroBatch& m : whole.micro) {
      labels += std::count_if(m.labels.begin(), m.labels.end(), [](int32_t l) { return l >= 0; });
    }
    EXPECT_EQ(whole.global_valid_labels, labels);
    for (int64_t size : {2, 3, 4, 9}) {
      for (int64_t rank = size - 1; rank >= 0; --rank) {
        const Batch mine = s.loader(plan).batch(step, rank, size);
        EXPECT_EQ(mine.global_valid_labels, labels);
        EXPECT_EQ(mine.global_tokens, whole.global_tokens);
        ASSERT_EQ(mine.micro.size(), mine.global_indices.size());
        for (size_t slot = 0; slot < mine.micro.size(); ++slot) {
          const int64_t g = mine.global_indices[slot];
          EXPECT_EQ(g, rank + static_cast<int64_t>(slot) * size);
          expect_same(mine.micro[slot], whole.micro[static_cast<size_t>(g)]);
        }
      }
    }
  }
}

TEST(Loader, AnEpochHoldsEveryBlockOnceAndTheNextIsShuffledAnew) {
  Scene s;
  s.config.held_out = 0;
  // One document whose ids are their positions: a row names its place.
  Ids ids;
  for (int i = 0; i < 965; ++i) ids.push_back(i);
  s.add("a", {ids}, 1);
  const Loader loader = s.loader({segment(32, 1, 1)});
  Ids orders[2];
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::set<int32_t> places;
    for (int64_t i = 0; i < 30; ++i) {
      const MicroBatch row = loader.micro_batch(epoch * 30 + i, 1);
      EXPECT_TRUE(places.insert(row.tokens[0] / 32).second);
      orders[epoch].push_back(row.tokens[0] / 32);
      EXPECT_EQ(row.tokens[31], row.tokens[0] + 31);
      EXPECT_EQ(row.labels[31], row.tokens[0] + 32);
    }
    EXPECT_EQ(places.size(), 30u);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_FALSE(std::is_sorted(orders[0].begin(), orders[0].end()));
  EXPECT_NE(s.loader({segment(32, 1, 1)}, 2).micro_batch(0, 30).tokens,
            loader.micro_batch(0, 30).tokens);
  EXPECT_DOUBLE_EQ(loader.epochs(45)[0], 1.5);
}

// 43 tokens are one block of 32 and a remainder of 10: over some epochs the block begins at each of
// eleven places, so that nothing is left out for good.
TEST(Loader, EpochsBeginAtOtherPlacesOfTheRemainder) {
  Scene s;
  s.config.held_out = 0;
  Ids ids;
  for (int i = 0; i < 43; ++i) ids.push_back(i + 1);
  s.add("a", {ids}, 1);
  const Loader loader = s.loader({segment(32, 1, 1)});
  std::set<int32_t> begins;
  for (int64_t epoch = 0; epoch < 200; ++epoch) {
    begins.insert(loader.micro_batch(epoch, 1).tokens[0]);
  }
  EXPECT_EQ(begins.size(), 11u);
  EXPECT_EQ(*begins.begin(), 1);
  EXPECT_EQ(*begins.rbegin(), 11);
}

TEST(Loader, StagesOfOtherLengthsRepeatNothingWithinAnEpoch) {
  Scene s;
  s.config.held_out = 0;
  Ids ids;
  for (int i = 0; i < 961; ++i) ids.push_back(i);
  s.add("a", {ids}, 1);
  std::vector<int> seen(961, 0);
  const auto count_tokens = [&](const Loader& loader, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      for (int32_t id : loader.micro_batch(n, 1).tokens) ++seen[static_cast<size_t>(id)];
    }
  };
  // 30 blocks of 32: 42 rows of 8 touch eleven blocks, then rows of 32 take the 19 others.
  const Loader loader = s.loader({segment(8, 1, 1), segment(32, 1, 1, 8 * 42)});
  ASSERT_EQ(loader.schedule().first_sample(1), 42);
  EXPECT_EQ(loader.micro_batch(41, 1).length, 8);
  EXPECT_EQ(loader.micro_batch(42, 1).length, 32);
  count_tokens(loader, 0, 42 + 19);
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), 42 * 8 + 19 * 32);
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 0), 2 * 8 + 1);  // the rest of the eleventh block
  expect_error(ExitCode::fault, {"two stages"}, [&] { loader.micro_batch(41, 2); });
  // A stage with an open end and short rows: whole epochs, each row once.
  const Loader open = s.loader({segment(32, 1, 1), segment(8, 1, 1, 5 * 32)});
  std::fill(seen.begin(), seen.end(), 0);
  count_tokens(open, 0, 5 + 25 * 4 + 30 * 4);
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 2), 960);
}

TEST(Loader, MixtureChangesWithTheStage) {
  Scene s;
  s.add("a", some_documents(300), 3);
  s.add("b", some_documents(300, 3), 1);
  LoadSegment later = segment(16, 4, 2, 16 * 400);
  later.weights = {0, 1};
  const Loader loader = s.loader({segment(16, 4, 2), later});
  int64_t counts[2] = {};
  for (int64_t step = 0; step < 50; ++step) {
    for (const MicroBatch& m : loader.batch(step, 0, 1).micro) {
      for (int32_t source : m.sources) ++counts[source];
    }
  }
  EXPECT_NEAR(static_cast<double>(counts[0]), 300, 2);
  EXPECT_NEAR(static_cast<double>(counts[1]), 100, 2);
  for (const MicroBatch& m : loader.batch(51, 0, 1).micro) {
    EXPECT_EQ(m.sources, (Ids{1, 1, 1, 1}));
  }
}

TEST(Loader, ADocumentChangesNothingOfTheOthers) {
  Scene s, t;
  s.config.held_out = t.config.held_out = 0;
  Documents documents = some_documents(100);
  s.add("a", documents, 1);
  for (int32_t& id : documents[50]) id = id == 0 ? 0 : 1000 - id;
  t.add("a", documents, 1);
  const MicroBatch x = s.loader({segment(64, 1, 1)}).micro_batch(0, 30);
  const MicroBatch y = t.loader({segment(64, 1, 1)}).micro_batch(0, 30);
  EXPECT_NE(x.tokens, y.tokens);
  EXPECT_EQ(x.positions, y.positions);
  EXPECT_EQ(x.first_key, y.first_key);
  const int64_t size = static_cast<int64_t>(documents[50].size());
  int64_t changed = 0;
  for (size_t i = 0; i < x.tokens.size(); ++i) {
    EXPECT_EQ(x.labels[i] < 0, y.labels[i] < 0);
    changed += x.labels[i] != y.labels[i];
  }
  // Its own labels at most: all but the end mark.
  EXPECT_GT(changed, 0);
  EXPECT_LE(changed, size - 1);
}

TEST(Loader, HeldOutDocumentsAreNeverTrainedOn) {
  Scene s;
  s.config.held_out = 0.3;
  Documents documents;
  for (int d = 0; d < 400; ++d) documents.push_back(Ids(9, d + 1));
  s.add("a", documents, 1);
  const Loader loader = s.loader({segment(16, 1, 1)});
  std::set<int32_t> train, held_out;
  const int64_t blocks = (loader.train_stream(0).tokens() - 1) / 16;
  for (int64_t n = 0; n < blocks; ++n) {
    for (int32_t id : loader.micro_batch(n, 1).tokens) train.insert(id);
  }
  int64_t labels = 0;
  const int64_t rows = loader.eval_rows(0, 16);
  for (int64_t r = 0; r < rows; ++r) {
    const MicroBatch row = loader.eval_micro_batch(0, r, 1, 16);
    ASSERT_EQ(row.tokens.size(), 16u);
    for (int32_t label : row.labels) {
      if (label >= 0) held_out.insert(label);
    }
    labels += row.valid_labels;
  }
  for (int32_t id : held_out) EXPECT_FALSE(train.contains(id)) << id;
  const DocumentStream& stream = loader.held_out_stream(0);
  EXPECT_NEAR(static_cast<double>(held_out.size()), 120, 45);
  EXPECT_EQ(static_cast<int64_t>(held_out.size()), stream.documents());
  // Every token but the first of all is predicted exactly once.
  EXPECT_EQ(labels, stream.tokens() - 1);
  EXPECT_EQ(stream.text_bytes(), 27 * stream.documents());
}

TEST(Loader, SaysWhatIsImpossible) {
  Scene s;
  s.add("a", {{1, 2, 3, 4, 5, 0}}, 1);
  s.config.held_out = 0;
  expect_error(ExitCode::usage, {"\"a\"", "6 tokens", "too few for a row of 8"},
               [&] { s.loader({segment(8, 1, 1)}); });
  expect_error(ExitCode::usage, {"sequences of 2", "3"}, [&] {
    s.loader({segment(3, 1, 1), segment(2, 1, 1, 100)});
  });
  LoadSegment odd = segment(2, 1, 1);
  odd.weights = {1, 2};
  expect_error(ExitCode::usage, {"2 weights for 1 source"}, [&] { s.loader({odd}); });
  const Loader loader = s.loader({segment(4, 1, 1)});
  expect_error(ExitCode::fault, {"rank 2 of 2"}, [&] { loader.batch(0, 2, 2); });
  expect_error(ExitCode::usage, {"empty"}, [&] { loader.micro_batch(0, 0); });
  TokenStoreFacts other = plain_facts(10);
  other.tokenizer_hash = "xyz";
  make_store(s.folder / "other", {{1, 2}}, other);
  s.config.sources.push_back(
      {.name = "o", .path = s.folder / "other", .weight = 1, .held_out = {}});
  expect_error(ExitCode::data, {"xyz", "abc", "pack the text again"},
               [&] { open_sources(s.config); });
}

}  // namespace
}  // namespace shoestring
