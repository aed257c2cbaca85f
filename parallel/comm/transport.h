#pragma once
// What a back end provides: moving bytes between ranks. The collectives' algorithms and the order
// of sums are in comm/collectives, shared by all back ends.

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace shoestring {

// Which call a transfer belongs to, for messages: "all_reduce #17 of 'world'".
struct CallName {
  std::string_view op;
  int64_t sequence = 0;
};

struct Outgoing {
  int peer;
  const std::byte* data;
  size_t bytes;
};
struct Incoming {
  int peer;
  std::byte* data;
  size_t bytes;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;
  // Blocks until every message of both lists is done. The k-th message received from a peer is the
  // k-th that it sent here. Throws PeerFailure after an abort; throws and aborts when a message has
  // another size than expected or a peer is not there by the deadline, which the error names.
  virtual void transfer(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                        CallName call) = 0;
  // All `members` (ranks here, in their new order) call this with the same list; `id` is the same
  // on all ranks of the parent and differs between splits, `color` differs within one.
  struct Child {
    std::span<const int> members;
    int color = 0;
    int64_t id = 0;
    std::string name;
  };
  // Null, where this rank is no member; it calls nevertheless.
  virtual std::unique_ptr<Transport> child(const Child& child) = 0;
  virtual void abort(std::string_view reason) noexcept = 0;
};

}  // namespace shoestring
