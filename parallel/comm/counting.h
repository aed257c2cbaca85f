#pragma once
// Counts what this rank sends, so that a test can say "this layer moves exactly 2 b s h bytes".

#include <array>
#include <atomic>

#include "parallel/comm/collectives.h"

namespace shoestring {

// By kind of call; counted when a call is made, not when it is done. Thread-safe.
struct Traffic {
  std::array<std::atomic<int64_t>, num_call_ops> bytes_sent{}, calls{};
  int64_t bytes(Call::Op op) const { return bytes_sent[static_cast<size_t>(op)].load(); }
  int64_t count(Call::Op op) const { return calls[static_cast<size_t>(op)].load(); }
  int64_t total_bytes() const;
  void reset();
};

// Splits of it count into the same traffic.
std::unique_ptr<Communicator> counting(Communicator& inner, std::shared_ptr<Traffic> traffic);
// The same of the splits alone: calls of `world` itself are not counted.
std::unique_ptr<Communicator> counting_splits(Communicator& world,
                                              std::shared_ptr<Traffic> traffic);

}  // namespace shoestring
