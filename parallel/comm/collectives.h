#pragma once
// The communicator over any transport: which messages each collective sends, and the rank-order
// folds. Every collective sends all messages of a phase at once, straight between the two ranks:
// reduce_scatter is an all-to-all of pieces and a fold, all_reduce that and an all_gather,
// broadcast a scatter and an all_gather (small ones go from the root to each rank in one phase). A
// rank of n sends (n-1)/n of the whole per phase, as a ring does, with two latencies instead of
// 2(n-1).

#include "parallel/comm/transport.h"
#include "parallel/communicator.h"

namespace shoestring {

// One call of a communicator, as the decorators see it.
struct Call {
  enum class Op : uint8_t {
    all_reduce,
    reduce_scatter,
    all_gather,
    all_to_all,
    broadcast,
    exchange
  };
  Op op = Op::all_reduce;
  View in;
  Buffer out;
  Reduce reduce = Reduce::sum;
  int root = 0;
  std::span<const int64_t> in_counts, out_counts;  // a piece a rank; empty where there is one
  std::span<const Transfer> transfers;
};
inline constexpr int num_call_ops = 6;
std::string_view name_of(Call::Op op);

// What `rank` of `size` hands to its transport for the call, in bytes; messages to itself are not
// counted.
int64_t bytes_sent(const Call& call, int rank, int size);
int64_t bytes_received(const Call& call, int rank, int size);

// While it lives, the calling thread's splits make communicators of this name, "tp/2" for color 2
// instead of "world/2".
class SplitName {
 public:
  explicit SplitName(std::string_view name);
  ~SplitName();
  SplitName(const SplitName&) = delete;
  SplitName& operator=(const SplitName&) = delete;
};

std::unique_ptr<Communicator> make_communicator(std::unique_ptr<Transport> transport);

}  // namespace shoestring
