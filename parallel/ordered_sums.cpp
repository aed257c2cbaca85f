#include "parallel/ordered_sums.h"

#include <algorithm>
#include <numeric>

#include "core/text.h"

namespace shoestring {
namespace {

// The figures of rank 0, then rank 1, ...
std::vector<double> gather(Communicator& communicator, Stream& stream, std::span<const double> own,
                           std::span<const int64_t> counts) {
  std::vector<double> all(
      static_cast<size_t>(std::accumulate(counts.begin(), counts.end(), int64_t{0})));
  communicator.all_gather(view_of(own), counts, buffer_of(std::span(all)), stream);
  stream.synchronize();
  return all;
}

}  // namespace

std::vector<double> gather_micro_batches(Communicator& communicator, Stream& stream,
                                         std::span<const double> own, int64_t micro_batches,
                                         int64_t width) {
  const int64_t n = communicator.size();
  std::vector<int64_t> counts(static_cast<size_t>(n));
  for (int64_t r = 0; r < n; ++r) {
    counts[static_cast<size_t>(r)] = (micro_batches - r + n - 1) / n * width;
  }
  const std::vector<double> by_rank = gather(communicator, stream, own, counts);
  std::vector<double> result(by_rank.size());
  auto from = by_rank.begin();
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t g = r; g < micro_batches; g += n) {
      std::copy_n(from, width, result.begin() + g * width);
      from += width;
    }
  }
  return result;
}

std::vector<double> sum_micro_batches(Communicator& communicator, Stream& stream,
                                      std::span<const double> own, int64_t micro_batches,
                                      int64_t width) {
  const std::vector<double> all =
      gather_micro_batches(communicator, stream, own, micro_batches, width);
  std::vector<double> sums(static_cast<size_t>(width));
  for (size_t i = 0; i < all.size(); ++i) sums[i % sums.size()] += all[i];
  return sums;
}

bool any_rank(Communicator& communicator, Stream& stream, bool flag) {
  std::vector<uint8_t> x{flag};
  communicator.all_reduce(buffer_of(std::span(x)), Reduce::max, stream);
  stream.synchronize();
  return x[0] != 0;
}

std::vector<double> gather_terms(Communicator& communicator, Stream& stream,
                                 std::span<const double> own, std::span<const TermRun> runs) {
  std::vector<int64_t> counts(static_cast<size_t>(communicator.size()));
  for (const TermRun& run : runs) counts.at(static_cast<size_t>(run.rank)) += run.count;
  const std::vector<double> by_rank = gather(communicator, stream, own, counts);
  std::vector<int64_t> at(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), at.begin(), int64_t{0});
  std::vector<double> result;
  result.reserve(by_rank.size());
  for (const TermRun& run : runs) {
    int64_t& from = at[static_cast<size_t>(run.rank)];
    result.insert(result.end(), by_rank.begin() + from, by_rank.begin() + from + run.count);
    from += run.count;
  }
  return result;
}

}  // namespace shoestring
