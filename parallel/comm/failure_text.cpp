#include "parallel/comm/failure_text.h"

#include <algorithm>
#include <utility>

#include "core/text.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

constexpr size_t most_clauses = 12;  // about other ranks

std::string text_of_ranks(std::span<const int> ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i > 0) append(text, i + 1 == ranks.size() ? " and " : ", ");
    append(text, ranks[i]);
  }
  return text;
}

const Whereabouts* at(const Board& board, int rank) {
  const bool known = rank >= 0 && rank < static_cast<int>(board.size());
  const Whereabouts* const place = known ? board[static_cast<size_t>(rank)] : nullptr;
  return place != nullptr && place->state() != Whereabouts::not_begun ? place : nullptr;
}

std::vector<int> lacking(const Whereabouts& rank) {
  std::vector<int> all;
  for (const Whereabouts::Call* call : rank.waits()) {
    for (const int r : lacking(*call)) {
      if (std::find(all.begin(), all.end(), r) == all.end()) all.push_back(r);
    }
  }
  return all;
}

// Behind "rank 4: ".
std::string doing(const Whereabouts& rank) {
  if (rank.state() == Whereabouts::left) return "at its end";
  const std::string place = rank.place();
  std::string text;
  for (const Whereabouts::Call* call : rank.waits()) {
    const std::vector<int> ranks = lacking(*call);
    append(text, text.empty() ? "" : " and ",
           ranks.empty() ? std::string() : cat("waiting for ", text_of_ranks(ranks), " "), "in ",
           call_text(*call));
  }
  if (text.empty()) return place.empty() ? "" : cat("busy in ", place);
  return place.empty() ? text : cat(text, ", ", place);
}

}  // namespace

std::optional<int> awaited_in_the_end(const Board& board, int rank, std::span<const int> first) {
  std::vector<int> seen;
  std::vector<int> next(first.begin(), first.end());
  // Where a worker waits, the rank itself may be busy, or wait for somebody else, while those that
  // the worker waits for wait for the rank.
  const Whereabouts* const start = at(board, rank);
  if (start == nullptr || !start->waits().empty()) seen.push_back(rank);
  if (start != nullptr) {
    const std::vector<int> own = lacking(*start);
    next.insert(next.end(), own.begin(), own.end());
  }
  for (size_t i = 0; i < next.size(); ++i) {
    const int r = next[i];
    if (std::find(seen.begin(), seen.end(), r) != seen.end()) continue;
    seen.push_back(r);
    const Whereabouts* const place = at(board, r);
    if (place == nullptr || place->state() == Whereabouts::left) return r;
    const std::vector<int> more = lacking(*place);
    if (more.empty()) return r;
    next.insert(next.end(), more.begin(), more.end());
  }
  return std::nullopt;
}

std::string place_text(const Board& board, int rank) {
  const Whereabouts* const here = at(board, rank);
  if (here == nullptr) return {};
  const std::string place = here->place();
  if (place.empty()) return {};
  std::string text = cat("rank ", rank, " on ", here->host(), " was in ", place);
  for (const Whereabouts::Call* call : here->waits()) {
    append(text, ", in ", call_text(*call));
    const std::vector<int> ranks = lacking(*call);
    if (!ranks.empty()) append(text, ", which lacks ", text_of_ranks(ranks));
  }
  return text;
}

std::string others_text(const Board& board, int rank) {
  std::vector<std::pair<std::string, std::vector<int>>> clauses;
  for (int r = 0; r < static_cast<int>(board.size()); ++r) {
    if (r == rank) continue;
    const Whereabouts* const other = at(board, r);
    const std::string text = other == nullptr ? "out of sight" : doing(*other);
    if (text.empty()) continue;
    const auto same = std::find_if(clauses.begin(), clauses.end(),
                                   [&](const auto& clause) { return clause.first == text; });
    if (same != clauses.end()) {
      same->second.push_back(r);
    } else {
      clauses.push_back({text, {r}});
    }
  }
  std::string line;
  size_t told = 0, left = 0;
  for (const auto& [text, ranks] : clauses) {
    if (told++ < most_clauses) {
      append(line, line.empty() ? "" : "; ", text_of_ranks(ranks), ": ", text);
    } else {
      left += ranks.size();
    }
  }
  if (left > 0) append(line, "; and ", left, " more");
  return line;
}

std::string failure_line(const FailureOf& failure, const Board& board) {
  std::string line = with_rank(failure.rank, failure.message);
  const Whereabouts* const here = at(board, failure.rank);
  const bool under_way = here != nullptr && here->in_step();
  if (failure.code != ExitCode::fault && !(failure.code == ExitCode::data && under_way))
    return line;
  const std::string place = place_text(board, failure.rank);
  if (place.empty()) return line;
  append(line, "; ", place);
  const std::string others = others_text(board, failure.rank);
  if (!others.empty()) append(line, "; meanwhile ", others);
  return line;
}

std::string unanswered_text(const Unanswered& wait, std::optional<int> cause) {
  const std::string waited = cat("rank ", wait.waiting, " waited ", wait.deadline, " ms for ",
                                 text_of_ranks(wait.lacking), " in ", wait.call);
  if (!cause) return cat("ranks wait for one another: ", waited);
  return cat("rank ", *cause, " does not answer: ", waited);
}

}  // namespace shoestring
