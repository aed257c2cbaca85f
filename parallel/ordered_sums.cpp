#include "parallel/ordered_sums.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

void MicroBatchRows::add(int64_t number, std::initializer_list<double> row) {
  micro.push_back(number);
  append(row);
}

MicroBatchRows gather_rows(Communicator& communicator, Stream& stream, const MicroBatchRows& own) {
  check(own.figures.size() == own.micro.size() * static_cast<size_t>(own.width),
        "a row of figures for each micro-batch");
  const auto micro = gather_values<int64_t>(communicator, stream, own.micro);
  const auto figures = gather_values<double>(communicator, stream, own.figures);
  if (figures.size() != micro.size() * static_cast<size_t>(own.width)) {
    fail(cat("ranks of ", communicator.name(), " tell ", figures.size(), " figures of ",
             micro.size(), " micro-batches, not ", own.width, " of each"));
  }
  std::vector<size_t> order(micro.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return micro[a] < micro[b]; });
  MicroBatchRows all{.width = own.width};
  for (const size_t i : order) {
    all.micro.push_back(micro[i]);
    const auto from = figures.begin() + static_cast<int64_t>(i) * own.width;
    all.figures.insert(all.figures.end(), from, from + own.width);
  }
  return all;
}

std::vector<double> sum_rows(Communicator& communicator, Stream& stream,
                             const MicroBatchRows& own) {
  const MicroBatchRows all = gather_rows(communicator, stream, own);
  std::vector<double> sums(static_cast<size_t>(own.width));
  for (size_t i = 0; i < all.figures.size(); ++i) sums[i % sums.size()] += all.figures[i];
  return sums;
}

bool any_rank(Communicator& communicator, Stream& stream, bool flag) {
  std::vector<uint8_t> x{flag};
  communicator.all_reduce(buffer_of(std::span(x)), Reduce::max, stream);
  const Awaiting waits("flag of any rank");
  stream.synchronize();
  return x[0] != 0;
}

}  // namespace shoestring
