#pragma once
// Inside of comm/mpi: the whereabouts of the processes of one machine, in memory that all of them
// read, also those of a process that is stopped or dead.

#include <mpi.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/comm/failure_text.h"

namespace shoestring {

class MpiBoard {
 public:
  // All ranks construct and destroy at once; MPI runs.
  MpiBoard();
  ~MpiBoard();
  MpiBoard(const MpiBoard&) = delete;
  MpiBoard& operator=(const MpiBoard&) = delete;
  // Instead of the end, where others may be gone: leaves the memory to the end of the process.
  void abandon() { abandoned_ = true; }

  Whereabouts& own() { return *own_; }
  // Whether this rank is the first of its machine that tells of a failure; later ones, a stopped
  // process that goes on when it is ended among them, know less.
  bool claim_telling() noexcept { return !telling_->exchange(true); }
  // Of other machines' ranks only the host is told.
  const Board& all() const { return all_; }

  // A rank of this machine whose process is stopped or gone although it has not come to its end.
  struct Lost {
    int rank = 0;
    bool gone = false;
  };
  std::optional<Lost> lost() const;
  // Like lost(), of processes that are gone. Only the first rank of the machine that still runs
  // looks at all of them, the others at it: one of them tells.
  std::optional<int> gone() const;

 private:
  struct Peer {
    int rank;
    const Whereabouts* place;
    bool visible = true;  // its process is, from this one's container
  };
  void open_window();
  void tell_hosts();

  int rank_ = 0, size_ = 1;
  bool abandoned_ = false;
  MPI_Comm machine_ = MPI_COMM_NULL;
  MPI_Win window_ = MPI_WIN_NULL;
  Whereabouts* own_ = nullptr;
  std::atomic<bool>* telling_ = nullptr;  // one for all processes of the machine
  std::vector<Peer> peers_;               // of this machine, ascending, with this rank
  std::vector<std::unique_ptr<Whereabouts>> elsewhere_;
  Board all_;
};

}  // namespace shoestring
