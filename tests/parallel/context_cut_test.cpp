#include "parallel/context_cut.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/check.h"
#include "core/layers/mtp.h"
#include "core/random.h"
#include "core/text.h"

namespace shoestring {
namespace {

TEST(ContextShare, DealsEveryColumnOnceInZigzag) {
  for (int ranks : {1, 2, 3, 4, 8}) {
    const int64_t length = 6 * ranks;
    std::vector<int> owner(static_cast<size_t>(length), -1);
    for (int r = 0; r < ranks; ++r) {
      const ContextShare share = context_share(length, r, ranks);
      EXPECT_EQ(share.tokens(), 6);
      EXPECT_EQ(share.row_length(), length);
      for (int64_t i = 0; i < share.tokens(); ++i) {
        const int64_t column = share.column(i);
        if (i > 0) {
          EXPECT_GT(column, share.column(i - 1));
        }
        EXPECT_EQ(owner.at(static_cast<size_t>(column)), -1);
        owner[static_cast<size_t>(column)] = r;
        EXPECT_EQ(share.count_before(column), i);
        EXPECT_TRUE(share.holds(column));
      }
      EXPECT_EQ(share.count_before(length), 6);
    }
    for (int64_t column = 0; column < length; ++column) {
      const int64_t chunk = column / 3;
      EXPECT_EQ(owner[static_cast<size_t>(column)], std::min(chunk, 2 * ranks - 1 - chunk));
      for (int r = 0; r < ranks; ++r) {
        EXPECT_EQ(context_share(length, r, ranks).holds(column),
                  owner[static_cast<size_t>(column)] == r);
      }
    }
  }
}

TEST(ContextShare, HasAnEqualShareOfTheCausalArea) {
  constexpr int ranks = 4;
  for (int r = 0; r < ranks; ++r) {
    const ContextShare share = context_share(64, r, ranks);
    int64_t area = 0;
    for (int64_t i = 0; i < share.tokens(); ++i) area += share.column(i) + 1;
    EXPECT_EQ(area, 64 * 65 / 2 / ranks);
  }
}

TEST(ContextShare, RefusesRowsThatItCannotCut) {
  try {
    context_share(698, 0, 4);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("696 or 704"), std::string::npos) << e.what();
  }
  EXPECT_THROW(context_share(4, 0, 4), Error);
  EXPECT_THROW(context_share(0, 0, 1), Error);
  EXPECT_THROW(context_share(16, 2, 2), Error);
}

// Rows of documents of a few tokens; some labels are masked.
MicroBatch some_rows(int64_t length) {
  MicroBatch m{.sequences = 3, .length = length};
  const RandomStream random(5, "rows");
  for (int64_t b = 0; b < m.sequences; ++b) {
    int64_t start = 0;
    for (int64_t t = 0; t < length; ++t) {
      const auto at = static_cast<uint64_t>(b * length + t);
      const bool last = random.below(at, 5) == 0;
      m.tokens.push_back(static_cast<int32_t>(random.below(at + 1000, 100)));
      m.labels.push_back(last ? -1 : static_cast<int32_t>(random.below(at + 1001, 100)));
      m.positions.push_back(static_cast<int32_t>(t - start));
      m.first_key.push_back(static_cast<int32_t>(start));
      m.document_start.push_back(static_cast<int32_t>(start));
      m.valid_labels += last ? 0 : 1;
      if (last) start = t + 1;
    }
    m.sample_ids.push_back(static_cast<uint64_t>(70 + b));
    m.sources.push_back(static_cast<int32_t>(b));
  }
  return m;
}

TEST(CutContext, KeepsEveryColumnsFigures) {
  const MicroBatch whole = some_rows(24);
  int64_t labels = 0;
  for (int r = 0; r < 3; ++r) {
    const ContextShare share = context_share(24, r, 3);
    const MicroBatch part = cut_context(whole, share);
    EXPECT_EQ(part.sequences, 3);
    EXPECT_EQ(part.length, 8);
    EXPECT_EQ(part.sample_ids, whole.sample_ids);
    EXPECT_EQ(part.sources, whole.sources);
    EXPECT_TRUE(part.shifted.empty());
    for (int64_t b = 0; b < 3; ++b) {
      for (int64_t i = 0; i < 8; ++i) {
        const auto at = static_cast<size_t>(b * 8 + i);
        const auto from = static_cast<size_t>(b * 24 + share.column(i));
        EXPECT_EQ(part.tokens[at], whole.tokens[from]);
        EXPECT_EQ(part.labels[at], whole.labels[from]);
        EXPECT_EQ(part.positions[at], whole.positions[from]);
        EXPECT_EQ(part.first_key[at], whole.first_key[from]);
        EXPECT_EQ(part.document_start[at], whole.document_start[from]);
      }
    }
    labels += part.valid_labels;
  }
  EXPECT_EQ(labels, whole.valid_labels);
}

// The borders of chunks change nothing of what multi-token prediction reads, at any depth.
TEST(CutContext, ShiftsWholeRowsBeforeTheyAreCut) {
  const MicroBatch whole = some_rows(24);
  Device device;
  const BatchTensors tensors = to_device(device, whole);
  for (int ranks : {1, 2, 4}) {
    for (int r = 0; r < ranks; ++r) {
      const ContextShare share = context_share(24, r, ranks);
      const MicroBatch cut = cut_context(whole, share, 3);
      const BatchTensors part = to_device(device, cut);
      for (int64_t k = 1; k <= 3; ++k) {
        SCOPED_TRACE(cat("rank ", r, " of ", ranks, ", module ", k));
        const ShiftedRows want = shift_rows(device, tensors, k), got = shift_rows(device, part, k);
        for (int64_t i = 0; i < 3 * share.tokens(); ++i) {
          const int64_t column = share.column(i % share.tokens());
          const int64_t from = i / share.tokens() * 24 + column;
          EXPECT_EQ(got.tokens.data<int32_t>()[i], want.tokens.data<int32_t>()[from]);
          EXPECT_EQ(got.labels.data<int32_t>()[i], want.labels.data<int32_t>()[from]);
          const int32_t main = got.main.data<int32_t>()[i];
          EXPECT_EQ(main >= 0, column + k < 24 && share.holds(column + k));
          if (main < 0) continue;
          EXPECT_EQ(main / share.tokens(), i / share.tokens());
          EXPECT_EQ(share.column(main % share.tokens()), column + k);
        }
      }
    }
  }
}

TEST(CutContext, CountsAgreementsWhereBothPredictionsAre) {
  const MicroBatch whole = some_rows(24);
  Device device;
  const BatchTensors part = to_device(device, cut_context(whole, context_share(24, 1, 2), 1));
  const ShiftedRows shifted = shift_rows(device, part, 1);
  int64_t want = 0;
  Tensor main(device, {36}, Dtype::i32), own(device, {36}, Dtype::i32);
  std::iota(main.data<int32_t>(), main.data<int32_t>() + 36, 0);
  for (int64_t i = 0; i < 36; ++i) {
    const int32_t at = shifted.main.data<int32_t>()[i];
    own.data<int32_t>()[i] = std::max(at, 0);
    if (shifted.labels.data<int32_t>()[i] >= 0 && at >= 0) ++want;
  }
  EXPECT_GT(want, 10);
  EXPECT_EQ(count_agreements(shifted, own, main, 1), want);
}

TEST(CutContext, RefusesRowsOfAnotherLength) {
  EXPECT_THROW(cut_context(some_rows(24), context_share(16, 0, 2)), Error);
  MicroBatch broken = some_rows(24);
  broken.positions.pop_back();
  EXPECT_THROW(cut_context(broken, context_share(24, 0, 2)), Error);
}

TEST(PadRows, AddsADocumentWithoutLabels) {
  const MicroBatch rows = some_rows(21);
  const MicroBatch padded = pad_rows(rows, 8);
  EXPECT_EQ(padded.length, 24);
  EXPECT_EQ(padded.valid_labels, rows.valid_labels);
  for (size_t b = 0; b < 3; ++b) {
    for (size_t t = 0; t < 24; ++t) {
      const size_t at = b * 24 + t, from = b * 21 + std::min<size_t>(t, 20);
      EXPECT_EQ(padded.tokens[at], t < 21 ? rows.tokens[from] : 0);
      EXPECT_EQ(padded.labels[at], t < 21 ? rows.labels[from] : -1);
      EXPECT_EQ(padded.positions[at], t < 21 ? rows.positions[from] : static_cast<int>(t) - 21);
      EXPECT_EQ(padded.first_key[at], t < 21 ? rows.first_key[from] : 21);
      EXPECT_EQ(padded.document_start[at], t < 21 ? rows.document_start[from] : 21);
    }
  }
  EXPECT_EQ(pad_rows(rows, 7).tokens, rows.tokens);
}

}  // namespace
}  // namespace shoestring
