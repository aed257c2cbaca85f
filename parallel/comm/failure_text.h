#pragma once
// The one line that a failure of many ranks is told with: what happened, where the rank was that it
// happened to, and what the others were waiting for. From the ranks' whereabouts.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/check.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {

// By rank of the world; null where a rank's memory cannot be read from here.
using Board = std::vector<const Whereabouts*>;

// Follows who waits for whom, from the ranks that `rank` lacks, to one that does not wait: the
// cause. Empty: they wait for one another.
std::optional<int> awaited_in_the_end(const Board& board, int rank, std::span<const int> lacking);

// "rank 5 on node1 was in step 3, 1I0 (...), layers.1.mlp.up, in all_reduce #17 of 'tp/2' (4096
// bytes), which lacks rank 4". Empty where the rank has told of no place.
std::string place_text(const Board& board, int rank);
// "rank 4: waiting for rank 5 in all_reduce #17 of 'tp/2', 1I0; ranks 0 and 2: waiting for ranks 1
// and 3 respectively in all_reduce #2 of 'dp/0' and '/1', update; ranks 6-8: busy in update". The
// step only where it is not that of `rank`; of many the first.
std::string others_text(const Board& board, int rank);

// The message, which names a rank, then both of these. What a user did speaks for itself, and so do
// files, where nothing was under way.
struct FailureOf {
  std::string message;
  ExitCode code = ExitCode::fault;
  int rank = 0;
};
std::string failure_line(const FailureOf& failure, const Board& board);

// The message of a wait that was longer than the deadline, and the rank that is to blame.
struct Unanswered {
  int waiting = 0;       // who gave up
  std::string call;      // "all_reduce #17 of 'tp/2'"
  int64_t deadline = 0;  // milliseconds
  std::vector<int> lacking;
};
std::string unanswered_text(const Unanswered& wait, std::optional<int> cause);

}  // namespace shoestring
