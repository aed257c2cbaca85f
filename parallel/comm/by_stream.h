#pragma once
// Two communicators of the same ranks as one: calls that are enqueued on one certain stream take
// the second, all others the first. A communicator runs one call at a time; passes that run side by
// side (parallel/lane.h) need one each, although the layers that call know of one.

#include <memory>

#include "parallel/communicator.h"

namespace shoestring {

// `stream` says where the certain stream is kept, which may change between calls; null there: none.
// All outlive it. Splits follow the same stream.
std::unique_ptr<Communicator> by_stream(Communicator& usual, Communicator& other,
                                        const Stream* const* stream);

}  // namespace shoestring
