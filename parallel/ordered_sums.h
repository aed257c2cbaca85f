#pragma once
// Small figures of a step over all ranks, with results that do not depend on how many there are.
// All of them wait for the result; every rank of the communicator calls.

#include <span>
#include <vector>

#include "parallel/communicator.h"

namespace shoestring {

// `own`: `width` figures for each micro-batch that ran here (micro-batch g runs on rank g % n), in
// order. The result has them of all micro-batches by global index, [micro_batches, width].
std::vector<double> gather_micro_batches(Communicator& communicator, Stream& stream,
                                         std::span<const double> own, int64_t micro_batches,
                                         int64_t width = 1);

// Column sums of the above, folded from micro-batch 0 on: `width` sums.
std::vector<double> sum_micro_batches(Communicator& communicator, Stream& stream,
                                      std::span<const double> own, int64_t micro_batches,
                                      int64_t width = 1);

// True on all ranks when it is on one: "some gradient is not finite".
bool any_rank(Communicator& communicator, Stream& stream, bool flag);

// Terms of pieces of the store (sums of squares by block): run i is `count` terms computed by rank
// `rank`; `own` has those of this rank, in the order of the runs. The result has the terms of all
// runs, in order, so that whoever adds them up adds them in the same order everywhere.
struct TermRun {
  int rank = 0;
  int64_t count = 0;
};
std::vector<double> gather_terms(Communicator& communicator, Stream& stream,
                                 std::span<const double> own, std::span<const TermRun> runs);

}  // namespace shoestring
