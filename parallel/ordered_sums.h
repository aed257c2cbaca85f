#pragma once
// Small figures of a step over all ranks, with results that do not depend on how many there are.
// All of them wait for the result; every rank of the communicator calls.

#include <span>
#include <vector>

#include "parallel/comm/whereabouts.h"
#include "parallel/communicator.h"

namespace shoestring {

// `width` figures a micro-batch, by its global number. Of one that several ranks saw parts of, each
// rank has rows of its own.
struct MicroBatchRows {
  int64_t width = 1;
  std::vector<int64_t> micro = {};
  std::vector<double> figures = {};  // [micro.size(), width]

  void add(int64_t number, std::initializer_list<double> row);
  void append(std::initializer_list<double> more) { figures.insert(figures.end(), more); }
  std::span<const double> row(size_t i) const {
    return std::span(figures).subspan(i * static_cast<size_t>(width), static_cast<size_t>(width));
  }
};

// Those of all ranks, ascending by micro-batch and, of one micro-batch, by rank. All ranks have the
// same width.
MicroBatchRows gather_rows(Communicator& communicator, Stream& stream, const MicroBatchRows& own);
// Column sums of the above, folded from the first row on: `width` sums.
std::vector<double> sum_rows(Communicator& communicator, Stream& stream, const MicroBatchRows& own);

// Everybody's values, rank 0's first.
template <class T>
std::vector<T> gather_values(Communicator& communicator, Stream& stream, std::span<const T> own);

// True on all ranks when it is on one: "some gradient is not finite".
bool any_rank(Communicator& communicator, Stream& stream, bool flag);

template <class T>
std::vector<T> gather_values(Communicator& communicator, Stream& stream, std::span<const T> own) {
  const std::vector<int64_t> ones(static_cast<size_t>(communicator.size()), 1);
  const int64_t count = static_cast<int64_t>(own.size());
  std::vector<int64_t> counts(ones.size());
  communicator.all_gather(view_of(std::span(&count, 1)), ones, buffer_of(std::span(counts)),
                          stream);
  const Awaiting waits("rows of all ranks");
  stream.synchronize();
  int64_t total = 0;
  for (const int64_t n : counts) total += n;
  std::vector<T> all(static_cast<size_t>(total));
  communicator.all_gather(view_of(own), counts, buffer_of(std::span(all)), stream);
  stream.synchronize();
  return all;
}

}  // namespace shoestring
