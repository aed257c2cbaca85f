#include "parallel/comm/mpi.h"

#include <mpi.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "core/log.h"
#include "core/text.h"
#include "parallel/comm/collectives.h"
#include "parallel/comm/mpi_transport.h"
#include "parallel/comm/rank_environment.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

// Ends this process, and by its exit code the job, where MPI has not started in time since another
// process has not come: no call of MPI is possible before, and nobody watches yet.
class StartWatch {
 public:
  explicit StartWatch(std::chrono::milliseconds limit) : thread_(watching(limit)) {}
  ~StartWatch() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  StartWatch(const StartWatch&) = delete;
  StartWatch& operator=(const StartWatch&) = delete;

 private:
  // The environment is read here: a complaint about it is the caller's.
  std::thread watching(std::chrono::milliseconds limit) {
    const std::optional<RankPlace> place = rank_place();
    const int rank = place ? place->rank : 0;
    return std::thread([this, limit, rank] { watch(limit, rank); });
  }
  void watch(std::chrono::milliseconds limit, int rank) {
    std::unique_lock lock(mutex_);
    const auto turn = turn_of_rank(rank, std::chrono::seconds(1));
    if (changed_.wait_for(lock, limit + turn, [this] { return over_; })) return;
    log_error(cat("rank ", rank, " on ", host_name(), ": MPI has not started within ",
                  limit.count(),
                  " ms: another process of this job has not come to its start or is "
                  "stopped; look for it with ps (state T) on the job's machines"));
    std::_Exit(static_cast<int>(ExitCode::fault));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

MpiSession::MpiSession(MpiOptions options) : state_(std::make_shared<State>()) {
  check(options.piece_bytes > 0 && options.piece_bytes <= std::numeric_limits<int>::max(),
        "MPI pieces must have 1 to 2^31 - 1 bytes");
  state_->options = options;
  const StartWatch watch(std::max(options.deadline, options.start));
  int level = 0;
  call_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
  if (level < MPI_THREAD_MULTIPLE) {
    fail("this MPI library does not let several threads communicate (MPI_THREAD_MULTIPLE)");
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &state_->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &state_->size);
  state_->board = std::make_unique<MpiBoard>();
  if (state_->size == 1) return;
  state_->watcher = std::make_unique<MpiWatcher>(
      *state_->board, options.deadline, [state = state_.get()](const std::string& why, int rank) {
        state->tell(why, ExitCode::fault, rank);
        state->abort(why, rank);
        await_turn(std::chrono::seconds(2));  // for the launcher, whose exit code says more
        MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::fault));
      });
}

MpiSession::~MpiSession() {
  {
    const Blocking blocking(*state_, "the barrier at the end");
    MPI_Barrier(MPI_COMM_WORLD);
  }
  state_->board->own().leave();
  state_->watcher.reset();
  state_->board.reset();
  MPI_Finalize();
}

std::pair<std::string, int> MpiSession::abort_cause() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->reason, state_->cause};
}

Whereabouts& MpiSession::place() { return state_->board->own(); }

int MpiSession::rank() const { return state_->rank; }
int MpiSession::size() const { return state_->size; }

std::unique_ptr<Communicator> MpiSession::world() {
  MPI_Comm comm = MPI_COMM_NULL;
  const Blocking blocking(*state_, "MPI_Comm_dup");
  call_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  return make_communicator(mpi_transport(state_, comm, "world"));
}

void MpiSession::end_all(const std::string& message, ExitCode code, int blamed) noexcept {
  state_->tell(message, code, blamed);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::abort();  // MPI_Abort does not return, but is not declared so
}

int mpi_machine() {
  std::optional<Blocking> blocking;
  if (Whereabouts* const place = whereabouts()) blocking.emplace(*place, "MPI_Comm_split_type");
  MPI_Comm machine = MPI_COMM_NULL;
  call_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine),
           "MPI_Comm_split_type");
  int first = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &first);
  call_mpi(MPI_Bcast(&first, 1, MPI_INT, 0, machine), "MPI_Bcast");
  MPI_Comm_free(&machine);
  return first;
}

void run_mpi(const std::function<void(Communicator&)>& body, MpiOptions options) {
  MpiSession session(options);
  set_log_rank(session.size() > 1 ? session.rank() : -1);
  const auto world = session.world();
  const WhereaboutsScope scope(&session.place());
  // Before the ranks that wait for this one give it up.
  auto turn = turn_of_rank(session.rank(), std::min(options.lead, options.deadline / 4));
  try {
    body(*world);
    return;
  } catch (const PeerFailure& error) {
    // Where another thread of this rank met the failure, or failed, that is what to tell.
    if (const auto [reason, cause] = session.abort_cause(); !reason.empty()) {
      await_turn(turn);
      session.end_all(reason, ExitCode::fault, cause);
    }
    await_turn(options.grace + turn);
    session.end_all(error.what(), error.code());
  } catch (const NoAnswer& error) {
    await_turn(turn);
    session.end_all(error.what(), error.code(), error.cause());
  } catch (const Error& error) {
    // What the others wait for is known when they wait.
    if (error.code() == ExitCode::fault) turn = std::max(turn, 10 * long_wait);
    await_turn(turn);
    session.end_all(text_of_error(error), error.code());
  } catch (const std::exception& error) {
    await_turn(turn);
    session.end_all(error.what(), ExitCode::fault);
  }
}

}  // namespace shoestring
