#pragma once
// Tells a callback when each call ran: the communication rows of a trace.

#include <chrono>
#include <functional>

#include "parallel/comm/collectives.h"

namespace shoestring {

struct CommunicationSpan {
  Call::Op op;
  std::string communicator;
  int64_t bytes;  // sent by this rank
  std::chrono::steady_clock::time_point begin, end;
};
// Called on the stream's thread after each call that succeeded.
using CommunicationListener = std::function<void(const CommunicationSpan&)>;

// Splits of it report to the same listener.
std::unique_ptr<Communicator> traced(Communicator& inner, CommunicationListener listener);

}  // namespace shoestring
