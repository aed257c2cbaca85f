#include "launcher/resume_point.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "io/digest.h"

namespace shoestring {
namespace {

constexpr int64_t none = -1;

// What each rank says, by rank.
std::vector<int64_t> gather(Communicator& ranks, Stream& stream, int64_t own) {
  std::vector<int64_t> all(static_cast<size_t>(ranks.size()));
  const std::vector<int64_t> ones(all.size(), 1);
  ranks.all_gather(view_of(std::span(&own, 1)), ones, buffer_of(std::span(all)), stream);
  stream.synchronize();
  return all;
}

// Of what differs between two checkpoints of the same step of different runs.
int64_t mark_of(const Checkpoint& checkpoint) {
  const std::string digest = digest_of(checkpoint.config() + "\n" + checkpoint.state());
  return static_cast<int64_t>(std::stoull(digest.substr(0, 15), nullptr, 16));
}

// Two ranks whose answers differ.
std::pair<size_t, size_t> least_and_most(const std::vector<int64_t>& x) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  return {static_cast<size_t>(low - x.begin()), static_cast<size_t>(high - x.begin())};
}

}  // namespace

std::optional<Checkpoint> find_resume_point(Communicator& ranks, Stream& stream,
                                            const std::string& directory,
                                            const std::function<void(const std::string&)>& warn) {
  int64_t newest = std::numeric_limits<int64_t>::max();
  std::optional<Checkpoint> found;
  const auto own = static_cast<size_t>(ranks.rank());
  std::vector<std::string> held;  // what rank 0 most likely warns of itself
  int64_t warnings = 0;
  const auto hold = [&](const std::string& text) {
    ++warnings;
    own == 0 ? warn(text) : held.push_back(text);
  };
  while (true) {
    warnings = 0;
    if (!found || found->step() > newest) {
      found = Checkpoint::latest(directory, hold, newest,
                                 {.rank = ranks.rank(), .ranks = ranks.size()});
    }
    const auto steps = gather(ranks, stream, found ? found->step() : none);
    const auto [least, most] = least_and_most(steps);
    if (steps[own] < steps[0]) std::for_each(held.begin(), held.end(), warn);
    held.clear();
    if (steps[least] == steps[most]) break;
    if (steps[least] == none) {
      fail_data(cat("rank ", least, " finds no checkpoint up to the step ", steps[most],
                    " that rank ", most, " would go on from, in ", directory,
                    "; run.directory must be one place that all ranks see: put back what is "
                    "missing there"));
    }
    newest = steps[least];
    // What a rank has warned of, with the reason, needs no second line.
    const bool told = gather(ranks, stream, warnings)[least] > 0;
    const auto first =
        std::find_if(steps.begin(), steps.end(), [&](int64_t step) { return step > newest; });
    if (found && !told && first == steps.begin() + ranks.rank()) {
      warn(cat("the checkpoint of step ", found->step(), " is passed over: rank ", least,
               " has none that is good after step ", newest));
    }
  }
  if (!found) return found;
  const auto marks = gather(ranks, stream, mark_of(*found));
  const auto [least, most] = least_and_most(marks);
  if (marks[least] != marks[most]) {
    fail_data(cat("the checkpoints of step ", found->step(), " that ranks ", least, " and ", most,
                  " find in ", directory,
                  " are of different runs; run.directory must be one place that all ranks see"));
  }
  return found;
}

}  // namespace shoestring
