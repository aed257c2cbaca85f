#pragma once
// Who this process is among the processes that a launcher started, from the variables that mpirun,
// PMI launchers and srun set. Reads the environment only: no MPI call.

#include <functional>
#include <optional>
#include <string>

namespace shoestring {

struct RankPlace {
  int rank = 0;
  int size = 1;
  int local_rank = 0;  // among the processes of this machine
};

// Empty when no launcher started this process, or it started one process only as part of a batch
// script. Variables that contradict each other are a usage error that names them. `read` is
// replaced in tests.
using ReadVariable = std::function<std::optional<std::string>(const char* name)>;
std::optional<RankPlace> rank_place();
std::optional<RankPlace> rank_place(const ReadVariable& read);

// Of this machine, for messages.
std::string host_name();

}  // namespace shoestring
