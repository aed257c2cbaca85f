#include "parallel/comm/mpi_transport.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "core/text.h"
#include "parallel/comm/failure_text.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

constexpr std::chrono::milliseconds until_told{300};

}  // namespace

void call_mpi(int code, std::string_view what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(cat("MPI says in ", what, ": ", std::string_view(text, static_cast<size_t>(length))));
}

void MpiSession::State::tell(const std::string& message, ExitCode code, int blamed) {
  if (told.exchange(true)) return;
  if (size > 1 && !board->claim_telling()) {
    std::this_thread::sleep_for(until_told);  // and not end the one that does
    return;
  }
  const FailureOf failure{.message = message, .code = code, .rank = blamed < 0 ? rank : blamed};
  const std::string line = size > 1 ? failure_line(failure, board->all()) : message;
  std::fprintf(stderr, "error: %s\n", line.c_str());
  std::fflush(stderr);
}

namespace {

using Clock = std::chrono::steady_clock;
using State = MpiSession::State;

// No other traffic is on our communicators, so one tag does.
constexpr int tag = 1;

class MpiTransport : public Transport {
 public:
  // Takes over `comm`.
  MpiTransport(std::shared_ptr<State> state, MPI_Comm comm, std::string name)
      : state_(std::move(state)), comm_(comm), name_(std::move(name)) {
    call_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    call_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    call_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    world_ranks_.resize(static_cast<size_t>(size_));
    MPI_Group ours, world;
    call_mpi(MPI_Comm_group(comm_, &ours), "MPI_Comm_group");
    call_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
    std::vector<int> all(world_ranks_.size());
    for (int r = 0; r < size_; ++r) all[static_cast<size_t>(r)] = r;
    call_mpi(MPI_Group_translate_ranks(ours, size_, all.data(), world, world_ranks_.data()),
             "MPI_Group_translate_ranks");
    MPI_Group_free(&ours);
    MPI_Group_free(&world);
  }
  ~MpiTransport() override {
    // Freeing is a collective call: after a failure it could wait for ranks that are gone.
    if (state_->abort_reason().empty() && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& name() const override { return name_; }
  void transfer(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                CallName call) override;
  std::unique_ptr<Transport> child(const Child& child) override;
  void abort(std::string_view reason) noexcept override { state_->abort(reason); }

 private:
  // One MPI request each, a piece of a message.
  struct Piece {
    int peer;
    bool received;
    int bytes;
  };
  struct Work {
    CallName call;
    Clock::time_point deadline;
    std::vector<MPI_Request> requests;
    std::vector<Piece> pieces;
    size_t open = 0;
    std::vector<int> indices;
    std::vector<MPI_Status> statuses;
  };

  int world_rank(int rank) const { return world_ranks_[static_cast<size_t>(rank)]; }
  std::string text(CallName call) const {
    return cat(call.op, " #", call.sequence, " of '", name_, "'");
  }
  template <class F>
  void for_pieces(size_t bytes, F&& piece) const;
  void start(const Outgoing& send, Work& work);
  void start(const Incoming& receive, Work& work);
  bool test(Work& work);
  void check_arrived(const Work& work, const Piece& piece, const MPI_Status& status) const;
  void check_alive(const Work& work) const;
  std::vector<int> lacking(const Work& work) const;
  static void cancel(Work& work) noexcept;

  std::shared_ptr<State> state_;
  MPI_Comm comm_;
  std::string name_;
  int rank_ = 0, size_ = 1;
  std::vector<int> world_ranks_;
};

// An empty message is sent too, so that a peer that expects something finds out.
template <class F>
void MpiTransport::for_pieces(size_t bytes, F&& piece) const {
  const auto limit = static_cast<size_t>(state_->options.piece_bytes);
  size_t at = 0;
  do {
    const size_t n = std::min(limit, bytes - at);
    piece(at, static_cast<int>(n));
    at += n;
  } while (at < bytes);
}

void MpiTransport::start(const Outgoing& send, Work& work) {
  for_pieces(send.bytes, [&](size_t at, int n) {
    MPI_Request request;
    call_mpi(MPI_Isend(send.data + at, n, MPI_BYTE, send.peer, tag, comm_, &request), "MPI_Isend");
    work.requests.push_back(request);
    work.pieces.push_back({send.peer, false, n});
  });
}

void MpiTransport::start(const Incoming& receive, Work& work) {
  for_pieces(receive.bytes, [&](size_t at, int n) {
    MPI_Request request;
    call_mpi(MPI_Irecv(receive.data + at, n, MPI_BYTE, receive.peer, tag, comm_, &request),
             "MPI_Irecv");
    work.requests.push_back(request);
    work.pieces.push_back({receive.peer, true, n});
  });
}

void MpiTransport::check_arrived(const Work& work, const Piece& piece,
                                 const MPI_Status& status) const {
  int bytes = 0;
  const bool truncated = status.MPI_ERROR == MPI_ERR_TRUNCATE;
  if (!truncated) MPI_Get_count(&status, MPI_BYTE, &bytes);
  if (!truncated && bytes == piece.bytes) return;
  fail(cat("rank ", world_rank(piece.peer), " sends ",
           truncated ? std::string("more than the ") : cat(bytes, " bytes instead of the "),
           piece.bytes, " bytes that rank ", state_->rank, " expects in ", text(work.call),
           "; the ranks make different calls, run with communication checks to see which"));
}

// Makes progress; true when something arrived or left.
bool MpiTransport::test(Work& work) {
  int done = 0;
  const int code = MPI_Testsome(static_cast<int>(work.requests.size()), work.requests.data(), &done,
                                work.indices.data(), work.statuses.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) call_mpi(code, "MPI_Testsome");
  if (done == MPI_UNDEFINED || done == 0) return false;
  for (int i = 0; i < done; ++i) {
    const Piece& piece = work.pieces[static_cast<size_t>(work.indices[static_cast<size_t>(i)])];
    MPI_Status& status = work.statuses[static_cast<size_t>(i)];
    // The error field is only set when the call says so.
    if (code == MPI_SUCCESS) status.MPI_ERROR = MPI_SUCCESS;
    if (status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_TRUNCATE) {
      call_mpi(status.MPI_ERROR, text(work.call));
    }
    if (piece.received) check_arrived(work, piece, status);
  }
  work.open -= static_cast<size_t>(done);
  return true;
}

void MpiTransport::check_alive(const Work& work) const {
  if (const std::string reason = state_->abort_reason(); !reason.empty()) {
    throw PeerFailure(
        cat("rank ", state_->rank, " gave up ", text(work.call), ": this rank failed: ", reason));
  }
  if (Clock::now() < work.deadline) return;
  const std::vector<int> ranks = lacking(work);
  const auto lost = state_->board->lost();
  const auto cause =
      lost ? lost->rank : awaited_in_the_end(state_->board->all(), state_->rank, ranks);
  throw NoAnswer(unanswered_text({.waiting = state_->rank,
                                  .call = text(work.call),
                                  .deadline = state_->options.deadline.count(),
                                  .lacking = ranks},
                                 cause),
                 cause.value_or(-1));
}

// By their ranks in the world: those whose messages are missing or, where none is, that do not take
// ours.
std::vector<int> MpiTransport::lacking(const Work& work) const {
  std::vector<int> ranks;
  for (const bool received : {true, false}) {
    for (size_t i = 0; i < work.requests.size() && i < work.pieces.size(); ++i) {
      const Piece& piece = work.pieces[i];
      if (work.requests[i] == MPI_REQUEST_NULL || piece.received != received) continue;
      const int rank = world_rank(piece.peer);
      if (std::find(ranks.begin(), ranks.end(), rank) == ranks.end()) ranks.push_back(rank);
    }
    if (!ranks.empty()) break;
  }
  return ranks;
}

// Before an error leaves transfer(): late messages may not land in memory that is somebody else's.
// Sends cannot be cancelled and only read.
void MpiTransport::cancel(Work& work) noexcept {
  for (size_t i = 0; i < work.pieces.size(); ++i) {
    if (work.requests[i] == MPI_REQUEST_NULL) continue;
    if (work.pieces[i].received) {
      MPI_Cancel(&work.requests[i]);
      int done = 0;
      MPI_Test(&work.requests[i], &done, MPI_STATUS_IGNORE);
    }
    if (work.requests[i] != MPI_REQUEST_NULL) MPI_Request_free(&work.requests[i]);
  }
}

void MpiTransport::transfer(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                            CallName call) {
  size_t bytes[2] = {};
  for (const Outgoing& m : sends) bytes[0] += m.bytes;
  for (const Incoming& m : receives) bytes[1] += m.bytes;
  CallRecord record(state_->board->own(),
                    {.op = call.op,
                     .group = name_,
                     .sequence = call.sequence,
                     .bytes = static_cast<int64_t>(std::max(bytes[0], bytes[1]))});
  auto told = Clock::now();
  Work work;
  work.call = call;
  work.deadline = Clock::now() + state_->options.deadline;
  try {
    for (const Incoming& r : receives) start(r, work);
    for (const Outgoing& s : sends) start(s, work);
    work.open = work.requests.size();
    work.indices.resize(work.open);
    work.statuses.resize(work.open);
    for (int idle = 0; work.open > 0;) {
      if (test(work)) {
        idle = 0;
        continue;
      }
      check_alive(work);
      if (const auto now = Clock::now(); now - told > long_wait) {
        told = now;
        record.lacks(lacking(work));
      }
      // Spin a little for short messages, then leave the core to compute threads.
      if (++idle < 64) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
  } catch (const NoAnswer& error) {
    state_->abort(error.what(), error.cause());
    cancel(work);
    throw;
  } catch (const std::exception& error) {
    state_->abort(error.what());
    cancel(work);
    throw;
  }
}

std::unique_ptr<Transport> MpiTransport::child(const Child& child) {
  const auto place = std::find(child.members.begin(), child.members.end(), rank_);
  const bool member = place != child.members.end();
  MPI_Comm comm = MPI_COMM_NULL;
  const Blocking blocking(*state_, "MPI_Comm_split");
  call_mpi(MPI_Comm_split(comm_, member ? child.color : MPI_UNDEFINED,
                          static_cast<int>(place - child.members.begin()), &comm),
           "MPI_Comm_split");
  if (!member) return nullptr;
  return std::make_unique<MpiTransport>(state_, comm, child.name);
}

}  // namespace

std::unique_ptr<Transport> mpi_transport(std::shared_ptr<MpiSession::State> state, MPI_Comm comm,
                                         std::string name) {
  return std::make_unique<MpiTransport>(std::move(state), comm, std::move(name));
}

}  // namespace shoestring
