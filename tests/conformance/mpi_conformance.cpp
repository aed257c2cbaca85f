// The conformance cases on MPI processes: mpirun -n N mpi_conformance [PIECE_BYTES].
// mpi_conformance fail MODE instead makes the last rank misbehave (throw, die, stall, mismatch,
// slow_cause, no_cause, late), which must end all ranks; a deadline of one second keeps it short.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "conformance/case_values.h"
#include "conformance/communicator_cases.h"
#include "parallel/comm/mpi.h"
#include "parallel/comm/rank_environment.h"

namespace {

using namespace shoestring;

void misbehave(Communicator& world, const std::string& mode) {
  Inline here;
  const bool last = world.rank() == world.size() - 1;
  std::vector<float> x(1000, 1.0f);
  barrier(world, here.stream);
  if (last && mode == "throw") fail_data("the disk of this rank is on fire");
  if (last && mode == "die") std::raise(SIGKILL);
  if (last && mode == "stall") std::this_thread::sleep_for(std::chrono::seconds(60));
  // The others only know that somebody failed, and know it first; or nobody says what it was.
  if (mode == "no_cause" || (!last && mode == "slow_cause"))
    throw PeerFailure("another rank failed");
  if (mode == "slow_cause") {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    fail_data("this is the cause");
  }
  const bool short_call = last && mode == "mismatch";
  world.all_reduce(buffer_of(std::span(x)).part(0, short_call ? 500 : 1000), Reduce::sum,
                   here.stream);
  fail(cat("rank ", world.rank(), " did not notice"));
}

void run_cases(Communicator& world) {
  // All ranks of these tests are on one machine.
  if (mpi_machine() != 0) fail("the ranks of one machine do not find one another");
  for (const CommunicatorCase& c : communicator_cases()) {
    try {
      c.run(world);
    } catch (const Error& error) {
      fail(cat("case ", c.name, ": ", error.what(), " [", error.where(), "]"));
    }
    if (world.rank() == 0) std::printf("ok %s on %d ranks\n", c.name, world.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  MpiOptions options{.deadline = std::chrono::seconds(60)};
  if (argc > 2) {
    const std::string mode = argv[2];
    options.deadline = std::chrono::seconds(1);
    // As one that is stopped while the others start.
    if (mode == "late" && rank_place()->rank == rank_place()->size - 1) ::pause();
    if (mode == "late") options.start = std::chrono::seconds(3);
    run_mpi([&](Communicator& world) { misbehave(world, mode); }, options);
    return 1;
  }
  if (argc > 1) options.piece_bytes = std::atoll(argv[1]);
  run_mpi(run_cases, options);
  return 0;
}
