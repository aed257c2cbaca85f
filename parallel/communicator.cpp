#include "parallel/communicator.h"

#include <algorithm>

#include "core/text.h"

namespace shoestring {

std::string_view name_of(Reduce reduce) {
  switch (reduce) {
    case Reduce::sum:
      return "sum";
    case Reduce::max:
      return "max";
    case Reduce::min:
      return "min";
  }
  fail("a reduction that does not exist");
}

std::vector<int64_t> even_counts(int64_t count, int ranks, int64_t granule) {
  if (count < 0 || ranks < 1 || granule < 1) {
    fail(cat("cannot share ", count, " elements among ", ranks, " ranks in blocks of ", granule));
  }
  const int64_t blocks = (count + granule - 1) / granule;
  const int64_t piece = (blocks + ranks - 1) / ranks * granule;
  std::vector<int64_t> counts(static_cast<size_t>(ranks));
  for (int r = 0; r < ranks; ++r) {
    counts[static_cast<size_t>(r)] = std::clamp<int64_t>(count - r * piece, 0, piece);
  }
  return counts;
}

void barrier(Communicator& communicator, Stream& stream) {
  const auto ranks = static_cast<size_t>(communicator.size());
  // The bytes live until the work is done: the last enqueued closure holds them.
  auto bytes = std::make_shared<std::vector<uint8_t>>(ranks);
  const std::vector<int64_t> ones(ranks, 1);
  const Buffer all = buffer_of(std::span(*bytes));
  communicator.all_gather(all.part(communicator.rank(), 1), ones, all, stream);
  stream.run([bytes] {});
}

}  // namespace shoestring
