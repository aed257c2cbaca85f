#pragma once
// What every back end must do, as a list of cases that all ranks of a world run together. The
// cases know no test framework, so that threads and MPI processes run the same code; they throw
// where something is wrong.

#include <span>

#include "parallel/communicator.h"

namespace shoestring {

struct CommunicatorCase {
  const char* name;
  void (*run)(Communicator& world);
};

std::span<const CommunicatorCase> communicator_cases();

}  // namespace shoestring
