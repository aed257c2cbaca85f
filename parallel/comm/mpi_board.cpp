#include "parallel/comm/mpi_board.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/rank_environment.h"

namespace shoestring {
namespace {

void require(int code, std::string_view what) {
  if (code != MPI_SUCCESS) fail(cat("MPI could not do ", what));
}

bool is_gone(int64_t process) {
  return ::kill(static_cast<pid_t>(process), 0) != 0 && errno == ESRCH;
}

// The letter behind the name in brackets, as proc(5) says; '?': not to be seen.
char state_of(int64_t process) {
  std::ifstream file(cat("/proc/", process, "/stat"));
  std::string line;
  if (!std::getline(file, line)) return '?';
  const size_t end = line.rfind(')');
  return end == std::string::npos || end + 2 >= line.size() ? '?' : line[end + 2];
}

// What a process has in the window.
struct Shared {
  Whereabouts place;
  std::atomic<bool> telling = false;  // that of the machine's first process counts
};

}  // namespace

MpiBoard::MpiBoard() {
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  all_.resize(static_cast<size_t>(size_));
  open_window();
  own_->begin(rank_, ::getpid(), host_name());
  tell_hosts();  // behind it every rank has begun
  for (Peer& peer : peers_) peer.visible = !is_gone(peer.place->process());
}

void MpiBoard::open_window() {
  require(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine_),
          "MPI_Comm_split_type");
  void* memory = nullptr;
  require(MPI_Win_allocate_shared(sizeof(Shared), alignof(Shared), MPI_INFO_NULL, machine_, &memory,
                                  &window_),
          "MPI_Win_allocate_shared");
  own_ = &(new (memory) Shared)->place;
  int here = 0;
  MPI_Comm_size(machine_, &here);
  std::vector<int> ranks(static_cast<size_t>(here));
  require(MPI_Allgather(&rank_, 1, MPI_INT, ranks.data(), 1, MPI_INT, machine_), "MPI_Allgather");
  for (int i = 0; i < here; ++i) {
    MPI_Aint bytes = 0;
    int unit = 0;
    require(MPI_Win_shared_query(window_, i, &bytes, &unit, &memory), "MPI_Win_shared_query");
    const int rank = ranks[static_cast<size_t>(i)];
    auto* shared = std::launder(static_cast<Shared*>(memory));
    if (i == 0) telling_ = &shared->telling;
    peers_.push_back({.rank = rank, .place = &shared->place});
    all_[static_cast<size_t>(rank)] = &shared->place;
  }
  std::sort(peers_.begin(), peers_.end(),
            [](const Peer& a, const Peer& b) { return a.rank < b.rank; });
}

void MpiBoard::tell_hosts() {
  constexpr size_t length = 64;
  std::array<char, length> own{};
  const std::string host = host_name();
  std::memcpy(own.data(), host.data(), std::min(host.size(), length - 1));
  std::vector<char> all(length * static_cast<size_t>(size_));
  require(MPI_Allgather(own.data(), length, MPI_CHAR, all.data(), length, MPI_CHAR, MPI_COMM_WORLD),
          "MPI_Allgather");
  for (size_t r = 0; r < all_.size(); ++r) {
    if (all_[r] != nullptr) continue;
    elsewhere_.push_back(std::make_unique<Whereabouts>());
    elsewhere_.back()->begin(static_cast<int>(r), 0, &all[r * length]);
    all_[r] = elsewhere_.back().get();
  }
}

MpiBoard::~MpiBoard() {
  if (abandoned_) return;
  MPI_Win_free(&window_);
  MPI_Comm_free(&machine_);
}

std::optional<MpiBoard::Lost> MpiBoard::lost() const {
  for (const Peer& peer : peers_) {
    if (peer.rank == rank_ || !peer.visible || peer.place->state() != Whereabouts::running)
      continue;
    const int64_t process = peer.place->process();
    const char state = is_gone(process) ? 'X' : state_of(process);
    if (state == 'X' || state == 'Z') return Lost{peer.rank, true};
    if (state == 'T' || state == 't') return Lost{peer.rank, false};
  }
  return std::nullopt;
}

std::optional<int> MpiBoard::gone() const {
  std::optional<int> first;
  for (const Peer& peer : peers_) {
    if (peer.rank == rank_ || !peer.visible || peer.place->state() != Whereabouts::running)
      continue;
    if (!is_gone(peer.place->process())) {
      if (peer.rank < rank_) return std::nullopt;
    } else if (!first) {
      first = peer.rank;
    }
  }
  return first;
}

}  // namespace shoestring
