#include "parallel/row_transfers.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "parallel/comm/whereabouts.h"
#include "parallel/row_ops.h"

namespace shoestring {
namespace {

View view_of(const Tensor& t) { return {t.raw(), t.elements(), t.dtype()}; }
Buffer buffer_of(const Tensor& t) { return {t.raw(), t.elements(), t.dtype()}; }

void copy(const Tensor& to, const Tensor& from) { std::memcpy(to.raw(), from.raw(), to.bytes()); }

// Rows begin..end of each of t ranks' n.
struct Run {
  int ranks = 0;
  int64_t n = 0, begin = 0, end = 0;
  int64_t rows() const { return end - begin; }
  // In the order of all rows.
  int64_t first(int rank) const { return rank * n + begin; }
  int64_t last(int rank) const { return rank * n + end; }
  Tensor place(const Tensor& all, int rank) const { return all.rows(first(rank), last(rank)); }
  // Of rows on their way, one rank's behind the other's.
  Tensor piece(const Tensor& room, int rank) const {
    return room.rows(rank * rows(), (rank + 1) * rows());
  }
  std::vector<int64_t> counts(const Tensor& like) const {
    return std::vector<int64_t>(static_cast<size_t>(ranks), rows() * like.columns());
  }
};

std::vector<Run> cut(const Communicator& group, int64_t n, int count) {
  std::vector<Run> runs;
  int64_t begin = 0;
  for (const int64_t length : even_counts(n, count)) {
    if (length > 0) runs.push_back({group.size(), n, begin, begin + length});
    begin += length;
  }
  return runs;
}

// Places for rows on their way, taken in turn. The first run is the longest.
class Rooms {
 public:
  Rooms(size_t count, const std::vector<Run>& runs, const Tensor& like) {
    if (runs.empty()) return;
    const Shape shape{runs[0].ranks * runs[0].rows(), like.columns()};
    for (size_t i = 0; i < std::min(count, runs.size()); ++i) {
      rooms_.emplace_back(like.device(), shape, like.dtype(), MemoryKind::communication);
    }
  }
  Tensor of(size_t number, const Run& run) const {
    return rooms_[number % rooms_.size()].rows(0, run.ranks * run.rows());
  }

 private:
  std::vector<Tensor> rooms_;
};

void await(Stream& stream, const Event& rows) {
  const Awaiting waits("rows");
  stream.wait(rows);
}

}  // namespace

RowTransfers::RowTransfers(Communicator& group, Device& device, int runs)
    : group_(group), runs_(runs), transfers_(Stream::worker(device, "rows")), abort_(group) {
  check(runs >= 1, "rows travel in one run or more");
}

int64_t RowTransfers::Gather::rows_beyond(int64_t rows) const { return rows * all_.group_.size(); }

int64_t RowTransfers::Gather::rows_before(int64_t rows) const {
  return rows_a_rank(all_.group_, rows);
}

void RowTransfers::Gather::cross(Stream& stream, const Tensor& x, const Tensor& y,
                                 const RowWork& work) {
  Communicator& group = all_.group_;
  Stream& transfers = all_.transfers_;
  const int own = group.rank();
  const int64_t n = rows_before(y.rows());
  const Tensor mine = y.rows(own * n, (own + 1) * n);
  if (!work.make) stream.run([mine, x] { copy(mine, x); });
  const std::vector<Run> runs = cut(group, n, all_.runs_);
  const bool whole = runs.size() == 1;
  // One place is enough: the same worker empties it before it fills it again.
  const Rooms rooms(whole ? 0 : 1, runs, y);
  std::vector<Event> done;
  for (size_t i = 0; i < runs.size(); ++i) {
    const Run& run = runs[i];
    const Tensor from = mine.rows(run.begin, run.end);
    if (work.make) work.make(run.begin, from);
    transfers.wait(stream.record());
    const Tensor room = whole ? y : rooms.of(i, run);
    group.all_gather(view_of(from), run.counts(y), buffer_of(room), transfers);
    // The tensors live at least until here.
    transfers.run([run, room, y, own, whole] {
      for (int r = 0; r < run.ranks; ++r) {
        if (r != own && !whole) copy(run.place(y, r), run.piece(room, r));
      }
    });
    done.push_back(transfers.record());
  }
  if (work.arrived) work.arrived(own * n, (own + 1) * n);
  for (size_t i = 0; i < runs.size(); ++i) {
    await(stream, done[i]);
    for (int r = 0; r < group.size(); ++r) {
      if (r != own && work.arrived) work.arrived(runs[i].first(r), runs[i].last(r));
    }
  }
}

void RowTransfers::Gather::cross_back(Stream& stream, const Tensor& dy, const Tensor& dx,
                                      const RowWork& work) {
  Communicator& group = all_.group_;
  Stream& transfers = all_.transfers_;
  const std::vector<Run> runs = cut(group, dx.rows(), all_.runs_);
  // While one is on its way the next one is made.
  const Rooms rooms(work.make ? 2 : 1, runs, dx);
  std::vector<Event> done;
  for (size_t i = 0; i < runs.size(); ++i) {
    const Run& run = runs[i];
    const Tensor room = rooms.of(i, run);
    if (work.make && i >= 2) await(stream, done[i - 2]);
    for (int r = 0; r < group.size() && work.make; ++r) {
      work.make(run.first(r), run.piece(room, r));
    }
    transfers.wait(stream.record());
    if (!work.make) {
      transfers.run([run, room, dy] {
        for (int r = 0; r < run.ranks; ++r) copy(run.piece(room, r), run.place(dy, r));
      });
    }
    const Tensor sum = dx.rows(run.begin, run.end);
    group.reduce_scatter(view_of(room), run.counts(dx), buffer_of(sum), Reduce::sum, transfers);
    transfers.run([room, sum] {});  // which live at least until here
    done.push_back(transfers.record());
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    await(stream, done[i]);
    if (work.arrived) work.arrived(runs[i].begin, runs[i].end);
  }
}

}  // namespace shoestring
