#include "parallel/context_cut.h"

#include <algorithm>
#include <span>
#include <vector>

#include "core/check.h"
#include "core/layers/mtp.h"
#include "core/text.h"

namespace shoestring {
namespace {

using Table = std::vector<int32_t>;

std::span<const int32_t> row_of(const Table& table, int64_t row, int64_t length) {
  return std::span(table).subspan(static_cast<size_t>(row * length), static_cast<size_t>(length));
}

// The rank's columns of a [B, S] table; an empty one stays empty.
Table cut(const Table& table, int64_t sequences, const ContextShare& share) {
  Table result;
  if (table.empty()) return result;
  const int64_t length = share.row_length();
  if (static_cast<int64_t>(table.size()) != sequences * length) {
    fail(cat("a micro-batch of ", sequences, " x ", length, " tokens has a table of ",
             table.size()));
  }
  result.reserve(static_cast<size_t>(sequences * share.tokens()));
  for (int64_t row = 0; row < sequences; ++row) {
    const auto columns = row_of(table, row, length);
    for (int64_t i = 0; i < share.tokens(); ++i) {
      result.push_back(columns[static_cast<size_t>(share.column(i))]);
    }
  }
  return result;
}

ShiftedTokens shift_and_cut(const MicroBatch& whole, const ContextShare& share, int64_t by) {
  const Table& documents = whole.document_start.empty() ? whole.first_key : whole.document_start;
  Table tokens(whole.tokens.size()), labels(whole.tokens.size());
  ShiftedTokens result;
  for (int64_t row = 0; row < whole.sequences; ++row) {
    const auto part = [&](Table& t) {
      return std::span(t).subspan(static_cast<size_t>(row * whole.length),
                                  static_cast<size_t>(whole.length));
    };
    shift_row({row_of(whole.tokens, row, whole.length), row_of(whole.labels, row, whole.length),
               row_of(documents, row, whole.length)},
              by, part(tokens), part(labels));
    for (int64_t i = 0; i < share.tokens(); ++i) {
      const int64_t at = share.column(i) + by;
      const bool here = at < whole.length && share.holds(at);
      result.main.push_back(
          here ? static_cast<int32_t>(row * share.tokens() + share.count_before(at)) : -1);
    }
  }
  result.tokens = cut(tokens, whole.sequences, share);
  result.labels = cut(labels, whole.sequences, share);
  return result;
}

}  // namespace

ContextShare context_share(int64_t row_length, int rank, int ranks) {
  const int64_t chunks = 2 * static_cast<int64_t>(ranks);
  if (ranks < 1 || rank < 0 || rank >= ranks) {
    fail(cat("the context axis has no rank ", rank, " of ", ranks));
  }
  if (row_length < 1 || row_length % chunks != 0) {
    const int64_t below = row_length / chunks * chunks;
    const std::string shorter = below > 0 ? cat(below, " or ") : "";
    fail_usage(cat("rows of ", row_length, " tokens cannot be shared by ", ranks,
                   " context ranks: their length must be a multiple of ", chunks,
                   " (2 chunks a rank), such as ", shorter, below + chunks));
  }
  return {.rank = rank, .ranks = ranks, .chunk = row_length / chunks};
}

MicroBatch cut_context(const MicroBatch& whole, const ContextShare& share, int64_t modules) {
  if (whole.length != share.row_length()) {
    fail(cat("a micro-batch has rows of ", whole.length, " tokens, not of ", share.row_length(),
             " as the ranks' share of them says"));
  }
  MicroBatch part{.sequences = whole.sequences,
                  .length = share.tokens(),
                  .tokens = cut(whole.tokens, whole.sequences, share),
                  .labels = cut(whole.labels, whole.sequences, share),
                  .positions = cut(whole.positions, whole.sequences, share),
                  .first_key = cut(whole.first_key, whole.sequences, share),
                  .document_start = cut(whole.document_start, whole.sequences, share),
                  .sample_ids = whole.sample_ids,
                  .sources = whole.sources};
  for (int64_t k = 1; k <= modules; ++k) part.shifted.push_back(shift_and_cut(whole, share, k));
  part.valid_labels = std::count_if(part.labels.begin(), part.labels.end(),
                                    [](int32_t label) { return label >= 0; });
  return part;
}

MicroBatch pad_rows(const MicroBatch& rows, int64_t multiple) {
  check(multiple >= 1 && rows.shifted.empty(), "whole rows are padded, before they are shifted");
  const int64_t have = rows.length, length = (have + multiple - 1) / multiple * multiple;
  // The columns that are added hold `first`, `first` + step, ...
  const auto longer = [&](const Table& table, int32_t first, int32_t step) {
    Table result;
    for (int64_t row = 0; row < rows.sequences && !table.empty(); ++row) {
      const auto columns = row_of(table, row, have);
      result.insert(result.end(), columns.begin(), columns.end());
      for (int64_t i = have; i < length; ++i) {
        result.push_back(first + step * static_cast<int32_t>(i - have));
      }
    }
    return result;
  };
  MicroBatch padded = rows;
  const auto start = static_cast<int32_t>(have);
  padded.length = length;
  padded.tokens = longer(rows.tokens, 0, 0);
  padded.labels = longer(rows.labels, -1, 0);
  padded.positions = longer(rows.positions, 0, 1);
  padded.first_key = longer(rows.first_key, start, 0);
  padded.document_start = longer(rows.document_start, start, 0);
  return padded;
}

}  // namespace shoestring
