#include "parallel/comm/failure_text.h"

#include <algorithm>
#include <utility>

#include "core/text.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

constexpr size_t most_clauses = 8;  // about other ranks

std::string text_of_ranks(std::span<const int> ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i > 0) append(text, i + 1 == ranks.size() ? " and " : ", ");
    append(text, ranks[i]);
  }
  return text;
}

// The same with "0-3" for three and more in a row.
std::string text_of_subjects(std::span<const int> ranks) {
  std::vector<std::string> runs;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (end - i > 2) {
      runs.push_back(cat(ranks[i], "-", ranks[end - 1]));
      i = end;
    } else {
      runs.push_back(cat(ranks[i++]));
    }
  }
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < runs.size(); ++i) {
    append(text, i == 0 ? "" : i + 1 == runs.size() ? " and " : ", ", runs[i]);
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

// What one rank or several, which are in ascending order, are doing.
struct Clause {
  std::vector<int> ranks;
  std::string key;           // ranks with the same one share a clause
  std::string doing, place;  // behind "rank 4: "
  // Of ranks that each lack a single other one in a single call: that one, by rank, and the groups.
  std::vector<int> awaited = {};
  std::vector<std::string> groups = {};
};

// "'tp/0'", "'tp/0', 'tp/1' and 'tp/2'".
std::string text_of_groups(const std::vector<std::string>& names) {
  std::string text = cat("'", names.front(), "'");
  for (size_t i = 1; i < names.size(); ++i) {
    append(text, i + 1 == names.size() ? " and '" : ", '", names[i], "'");
  }
  return text;
}

std::string text_of(const Clause& clause) {
  const auto& [ranks, key, doing, place, awaited, groups] = clause;
  std::string text = cat(text_of_subjects(ranks), ": ");
  if (awaited.empty()) {
    append(text, doing);
  } else {
    const bool same = std::all_of(awaited.begin(), awaited.end(),
                                  [&](int rank) { return rank == awaited.front(); });
    append(text, "waiting for ",
           same ? text_of_ranks(std::span(awaited).first(1))
                : cat(text_of_ranks(awaited), " respectively"),
           " in ", doing, " of ", text_of_groups(groups));
  }
  return cat(text, place.empty() ? "" : ", ", place);
}

// Nothing to tell of: an empty key. `step`: that of the rank that the line is about.
Clause clause_of(int rank, const Whereabouts* place, int64_t step) {
  Clause clause{.ranks = {rank}, .key = {}, .doing = {}, .place = {}};
  if (place == nullptr) {
    clause.doing = "out of sight";
  } else if (place->state() == Whereabouts::left) {
    clause.doing = "at its end";
  } else {
    clause.place = place->short_place(step);
    const auto waits = place->waits();
    for (const Whereabouts::Call* call : waits) {
      const std::vector<int> ranks = lacking(*call);
      const std::string group = call->group.get();
      const std::string what = cat(call->op.get(), " #", call->sequence.load());
      if (waits.size() == 1 && ranks.size() == 1) {
        clause.doing = what;
        clause.awaited = ranks;
        clause.groups = {group};
        clause.key = cat(what, " of ", group.substr(0, group.rfind('/')), ", ", clause.place);
        return clause;
      }
      append(clause.doing, clause.doing.empty() ? "" : " and ",
             ranks.empty() ? std::string() : cat("waiting for ", text_of_ranks(ranks), " "), "in ",
             what, " of '", group, "'");
    }
    if (clause.doing.empty() && !clause.place.empty()) {
      clause.doing = cat("busy in ", std::exchange(clause.place, ""));
    }
  }
  if (!clause.doing.empty()) clause.key = cat("! ", clause.doing, ", ", clause.place);
  return clause;
}

// Ranks that do the same are one clause; of those that await different ones, so many at most that a
// reader can count them off.
std::vector<Clause> clauses_of(const Board& board, int rank) {
  constexpr size_t most_respectively = 8;
  const Whereabouts* const here = at(board, rank);
  std::vector<Clause> clauses;
  for (int r = 0; r < static_cast<int>(board.size()); ++r) {
    if (r == rank) continue;
    Clause next = clause_of(r, at(board, r), here == nullptr ? 0 : here->step());
    if (next.key.empty()) continue;
    const auto same = std::find_if(clauses.begin(), clauses.end(), [&](const Clause& c) {
      const bool alike =
          next.awaited.empty() ||
          (c.awaited == std::vector(c.ranks.size(), next.awaited[0]) && c.groups == next.groups);
      return c.key == next.key && (alike || c.ranks.size() < most_respectively);
    });
    if (same == clauses.end()) {
      clauses.push_back(std::move(next));
      continue;
    }
    same->ranks.push_back(r);
    same->awaited.insert(same->awaited.end(), next.awaited.begin(), next.awaited.end());
    for (const std::string& group : next.groups) {
      const auto known = std::find(same->groups.begin(), same->groups.end(), group);
      if (known == same->groups.end()) same->groups.push_back(group);
    }
  }
  return clauses;
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
  std::string line;
  size_t told = 0, left = 0;
  for (const Clause& clause : clauses_of(board, rank)) {
    if (told++ < most_clauses) {
      append(line, line.empty() ? "" : "; ", text_of(clause));
    } else {
      left += clause.ranks.size();
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
