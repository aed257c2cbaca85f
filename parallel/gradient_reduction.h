#pragma once
// Sums of one bucket's gradients over data parallel ranks, on a stream. Two levels (hierarchical
// sharding): the ranks of `shard` own a piece each, those of `replicate` have the same pieces.
//
//   plain   reduce-scatter inside, all-reduce of the own piece across
//   exact   the owners get every rank's own gradient and add them in the order of the ranks
//
// Ranks of both together are numbered with `shard` as the fast coordinate.

#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "parallel/communicator.h"
#include "parallel/shard_layout.h"

namespace shoestring {

struct ReductionPlan {
  Communicator& shard;
  Communicator* replicate = nullptr;  // null: one level
  Stream& stream;
  const ShardLayout& layout;  // of the ranks of `shard`
  bool sums = false;          // keeps a sum of the owned elements in f32
  bool exact = false;
  int64_t sources = 1;     // exact: `whole` has this many rows, of data ranks in ascending order
  Device* host = nullptr;  // where the sum lies; null: with the stream's device
  Tensor memory = {};      // of the sum; empty: of its own
};

class GradientReduction {
 public:
  explicit GradientReduction(const ReductionPlan& plan);

  int ranks() const { return plan_.shard.size() * replicas(); }
  int rank() const;

  // Everything is enqueued; `bucket`: index in the layout; `whole`: its gradients.
  // The own piece of `whole` gets the sum over all ranks.
  void reduce(size_t bucket, Buffer whole);
  // All ranks get the owners' pieces of `whole`: gradients here, weights elsewhere.
  void gather(size_t bucket, Buffer whole);
  // sum += own piece of `whole`; the first since clear() is taken as it is.
  void add_own(size_t bucket, Buffer whole);
  // sum += the own piece of the first `terms` gradients, one by one; rank r has `sources` of them
  // from term r sources on. The others are not sent: adding their zeros could change -0.
  void add_each(size_t bucket, Buffer whole, int64_t terms);
  // The own piece of `whole` gets the sum.
  void write_back(size_t bucket, Buffer whole);
  // Sets the sum to zero.
  void clear();

  // The sum, in the order of ShardLayout::owned.
  std::span<float> sums() const;
  int64_t bytes_sent() const { return bytes_sent_; }
  void reset_bytes() { bytes_sent_ = 0; }

 private:
  size_t sources() const { return static_cast<size_t>(plan_.sources); }
  int replicas() const { return plan_.replicate == nullptr ? 1 : plan_.replicate->size(); }
  Buffer own_piece(size_t bucket, Buffer whole) const;
  std::span<float> sum_of(size_t bucket) const;
  Tensor view_of_piece(Buffer piece) const;
  std::byte* land(Buffer piece, int64_t source);
  int64_t senders_of(int64_t source, int64_t terms) const;
  std::byte* collect(size_t bucket, Buffer whole, int64_t senders, int64_t source);

  ReductionPlan plan_;
  std::vector<int64_t> sum_begin_, sum_end_;  // of each bucket
  std::vector<bool> begun_;
  Tensor sums_;
  // Exact mode, by source: what the ranks of this replica sent, then what all sent.
  Tensor inside_, all_;
  Tensor landing_;  // host only: the own piece before it is added
  int64_t bytes_sent_ = 0;
};

}  // namespace shoestring
