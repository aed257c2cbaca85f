#pragma once
// Processes as ranks, over MPI. MPI is only the transport (Isend, Irecv, Test): collectives and the
// order of sums are ours, so results equal those of threads bit for bit, and a wait can name the
// rank it waits for, which a blocking MPI call cannot. The thread that runs a call (the worker of
// its stream) makes the progress, because Open MPI makes none outside of MPI calls.

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "parallel/comm/whereabouts.h"
#include "parallel/communicator.h"

namespace shoestring {

struct MpiOptions {
  std::chrono::milliseconds deadline = std::chrono::seconds(300);
  // The deadline of MPI's own start, if longer: many processes of a busy machine take their time.
  std::chrono::milliseconds start = std::chrono::seconds(60);
  // How long a rank that only suffers from another's failure leaves that one to say what it was,
  // before it ends all ranks itself.
  std::chrono::milliseconds grace = std::chrono::seconds(5);
  // How long a rank that failed leaves those before it to say the same (turn_of_rank in
  // comm/rank_failure.h); at most a quarter of the deadline.
  std::chrono::milliseconds lead = std::chrono::seconds(2);
  // Longer messages are cut into pieces: MPI 3 counts are ints. Equal on all ranks.
  int64_t piece_bytes = int64_t{1} << 30;
};

// MPI from its initialisation to its end: one a process, whole life. The constructor is the first
// MPI call that the program makes; a process that never makes a session never starts MPI.
class MpiSession {
 public:
  explicit MpiSession(MpiOptions options = {});
  ~MpiSession();  // finalizes; every rank must come here, with its communicators gone
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const;
  int size() const;
  std::unique_ptr<Communicator> world();
  Whereabouts& place();
  // Why a wait of this rank gave up, and the rank to blame; -1: none is known.
  std::pair<std::string, int> abort_cause() const;
  // Prints the message in one line with where the ranks are (comm/failure_text.h), and ends all
  // ranks with this exit code. mpirun returns the code. `blamed`: the rank that it tells of, where
  // it is another.
  [[noreturn]] void end_all(const std::string& message, ExitCode code, int blamed = -1) noexcept;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

// Runs `body` on this process's rank. An exception ends all ranks (end_all); their processes get
// SIGTERM from mpirun and are gone within about two seconds. One rank is heard: that which failed
// rather than those that suffered (options.grace), the first of those that failed (options.lead).
// Otherwise returns after all ranks have come to the end.
void run_mpi(const std::function<void(Communicator&)>& body, MpiOptions options = {});

// Equal for the ranks of one machine, different for those of different ones: the color of a split,
// however the processes were placed. Inside of run_mpi; every rank calls.
int mpi_machine();

}  // namespace shoestring
