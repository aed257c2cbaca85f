#pragma once
// Finds ranks that make different calls, before the calls mix up their messages.

#include "parallel/communicator.h"

namespace shoestring {

// Before each call the ranks compare operation, element type, count, root and sequence number; a
// difference is an error on every rank that names who differs, both calls and where they are made.
// all_to_all also compares counts pairwise, exchange compares each message with its receiver's
// expectation. Costs one small all_gather (or one small message) a call. All ranks must use it, or
// none. Splits of it are checked too.
std::unique_ptr<Communicator> checked(Communicator& inner);

}  // namespace shoestring
