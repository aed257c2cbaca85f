#pragma once
// How the ranks of one machine share its cores.

#include <cstdint>

#include "parallel/communicator.h"

namespace shoestring {

struct CoreShare {
  int threads = 1;    // of this rank
  int cores = 0;      // that the machine's ranks keep busy together; 0: this rank's threads
  int own_cores = 0;  // of them, those that the system lets this rank run on; 0: all
  bool first = true;  // among the ranks of the machine
};

// All ranks of one machine call; `here` is their communicator. `wanted`: cores for all of them,
// 0 for all that the system lets any of them run on, whether it binds them to cores or not.
CoreShare share_cores(Communicator& here, int64_t wanted);

}  // namespace shoestring
