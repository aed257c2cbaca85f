#pragma once
// Makes links slow: a call takes at least latency + bytes / bandwidth, as on a network. Shows on
// one machine what overlap hides.

#include "parallel/communicator.h"

namespace shoestring {

struct LinkSpeed {
  double bytes_per_second = 0;  // of each rank, each way; must be positive
  double latency_seconds = 0;   // of each call
};

// Splits of it have links of the same speed.
std::unique_ptr<Communicator> throttled(Communicator& inner, LinkSpeed speed);

}  // namespace shoestring
