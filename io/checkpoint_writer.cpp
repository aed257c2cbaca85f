#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "core/check.h"
#include "core/log.h"
#include "core/text.h"
#include "io/checkpoint.h"
#include "io/checkpoint_save.h"
#include "io/durable_file.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

uint64_t bytes_of(const TensorPiece& p) {
  return static_cast<uint64_t>(p.end - p.begin) * size_of(p.dtype);
}

// Without parts of no elements, unless the tensor itself has none.
CheckpointContent checked(const CheckpointContent& content) {
  CheckpointContent result = content;
  result.pieces.clear();
  if (content.step < 0) fail(cat("a checkpoint of step ", content.step));
  for (const TensorPiece& piece : content.pieces) {
    check_piece(piece);
    if (piece.end > piece.begin || piece.shape.elements() == 0) result.pieces.push_back(piece);
  }
  return result;
}

std::string without(std::string text, std::string_view part) {
  if (const size_t at = text.find(part); at != std::string::npos) text.erase(at, part.size());
  return text;
}

// The first pieces, as many as the limit allows.
struct Copied {
  size_t pieces = 0;
  uint64_t bytes = 0;
};
Copied what_is_copied(const std::vector<TensorPiece>& pieces, const CheckpointOptions& options) {
  Copied copied;
  if (!options.background) return copied;
  const auto limit = static_cast<uint64_t>(options.memory_limit_bytes);
  for (const TensorPiece& piece : pieces) {
    const uint64_t bytes = bytes_of(piece);
    if (limit > 0 && copied.bytes + bytes > limit) break;
    copied.bytes += bytes;
    ++copied.pieces;
  }
  return copied;
}

}  // namespace

int64_t copied_bytes(const CheckpointContent& content, const CheckpointOptions& options) {
  return static_cast<int64_t>(what_is_copied(checked(content).pieces, options).bytes);
}

// At most one save is in flight, in `thread`; everything but the statistics belongs to it until it
// is joined.
struct CheckpointWriter::State {
  explicit State(CheckpointOptions o) : options(std::move(o)), folder(options.directory) {}
  ~State() { count_copy(0); }

  CheckpointOptions options;
  CheckpointFolder folder;
  int64_t sequence = 0;
  std::atomic<bool> closing = false;
  std::thread thread;
  std::unique_ptr<std::byte[]> copy;  // kept, so that its pages are there the next time
  uint64_t copy_bytes = 0;
  std::string failure;                      // of the last save; empty: it is on the disk
  std::vector<std::string> failed_folders;  // rank 0's, until every rank has passed them
  std::vector<int64_t> passed_over;         // steps of folders that the run could not go on from
  std::optional<int64_t> unproven;          // the newest on the disk, with one more than `keep`
  mutable std::mutex mutex;
  CheckpointStats stats;

  void wait() {
    if (thread.joinable()) thread.join();
  }
  void count_copy(uint64_t bytes);
  size_t copy_pieces(CheckpointContent& content);
  void prune(int64_t latest, int64_t keep);
  void begin(CheckpointSave& save);
  void attempt(CheckpointSave& save, const std::function<void()>& work);
  void write_and_commit(CheckpointSave& save, size_t pieces);
  void start(const std::shared_ptr<CheckpointSave>& save, size_t copied);
};

void CheckpointWriter::State::count_copy(uint64_t bytes) {
  if (options.ledger != nullptr) {
    options.ledger->add(MemoryKind::other,
                        static_cast<int64_t>(bytes) - static_cast<int64_t>(copy_bytes));
  }
  copy_bytes = bytes;
}

// Returns how many pieces were copied.
size_t CheckpointWriter::State::copy_pieces(CheckpointContent& content) {
  const auto [count, total] = what_is_copied(content.pieces, options);
  if (total > copy_bytes) {
    copy.reset();  // never two at a time
    count_copy(0);
    copy = std::make_unique_for_overwrite<std::byte[]>(total);
    count_copy(total);
  }
  std::byte* to = copy.get();
  for (size_t i = 0; i < count; ++i) {
    TensorPiece& piece = content.pieces[i];
    if (bytes_of(piece) == 0) continue;
    std::memcpy(to, piece.data, bytes_of(piece));
    piece.data = to;
    to += bytes_of(piece);
  }
  return count;
}

void CheckpointWriter::State::prune(int64_t latest, int64_t keep) {
  try {
    folder.retain(latest, keep, options.keep_every, passed_over);
  } catch (const Error& e) {
    log_warning(cat("an old checkpoint stays: ", e.what()));
  }
}

// That there is a newer state to save proves the one before, which makes room on the disk first.
void CheckpointWriter::State::begin(CheckpointSave& save) {
  const auto before = std::exchange(unproven, std::nullopt);
  if (before && *before < save.content().step) prune(*before, options.keep);
  save.begin();
}

// Any failure ends this save, not the training. Of several ranks' one warns: rank 0, or whoever
// could not tell rank 0.
void CheckpointWriter::State::attempt(CheckpointSave& save, const std::function<void()>& work) {
  if (!failure.empty()) return;
  const Clock::time_point start = Clock::now();
  try {
    work();
  } catch (const std::exception& e) {
    failure = cat("the checkpoint of step ", save.content().step, " was not saved: ", e.what());
    const bool told = save.give_up(e.what());
    if (options.ranks > 1 && options.rank == 0) failed_folders.push_back(save.temporary());
    if (!save.content().last && !told) {
      log_warning(
          cat(without(failure, run_again), "; training goes on and the next save tries again"));
    }
  }
  std::lock_guard lock(mutex);
  stats.write_seconds += seconds_since(start);
}

void CheckpointWriter::State::write_and_commit(CheckpointSave& save, size_t pieces) {
  for (size_t i = 0; i < pieces; ++i) save.write(i);
  save.commit();
  {
    std::lock_guard lock(mutex);
    stats.bytes += save.bytes();
    ++stats.saves;
  }
  if (options.rank != 0) return;
  const int64_t step = save.content().step;
  std::erase(passed_over, step);  // it is good now
  const bool surplus = options.keep == 1 && !save.content().proven;
  prune(step, surplus ? 2 : options.keep);
  if (surplus) unproven = step;
  // Every rank took part in this save, so none looks at these any more.
  for (const std::string& path : std::exchange(failed_folders, {})) remove_folder(path);
}

void CheckpointWriter::State::start(const std::shared_ptr<CheckpointSave>& save, size_t copied) {
  const size_t pieces = save->content().pieces.size();
  if (copied < pieces || !options.background) {
    attempt(*save, [&] {
      begin(*save);
      for (size_t i = copied; i < pieces; ++i) save->write(i);
    });
    if (!options.background) return attempt(*save, [&] { write_and_commit(*save, copied); });
  }
  auto rest = [this, save, copied, begun = copied < pieces, rank = log_rank()] {
    set_log_rank(rank);
    attempt(*save, [&] {
      if (!begun) begin(*save);
      write_and_commit(*save, copied);
    });
  };
  try {
    thread = std::thread(rest);
  } catch (const std::system_error&) {
    rest();  // no thread to be had: saving takes the caller's time
  }
}

CheckpointWriter::CheckpointWriter(CheckpointOptions options)
    : state_(std::make_unique<State>(std::move(options))) {
  const CheckpointOptions& o = state_->options;
  const auto require_least = [](const char* what, int64_t value, int64_t least) {
    if (value < least) fail_usage(cat(what, " must be at least ", least, " but is ", value));
  };
  if (o.directory.empty()) fail_usage("checkpoints need a directory to stand in");
  if (o.rank < 0 || o.rank >= o.ranks) fail_usage(cat("a rank ", o.rank, " of ", o.ranks));
  require_least("the number of checkpoints to keep", o.keep, 1);
  require_least("the step multiple of checkpoints that stay", o.keep_every, 0);
  require_least("the memory limit of a checkpoint's copy, in bytes,", o.memory_limit_bytes, 0);
  if (o.rank == 0) state_->folder.clean();
}

CheckpointWriter::~CheckpointWriter() {
  state_->closing = true;
  state_->wait();
}

void CheckpointWriter::resumed_from(int64_t step) {
  state_->passed_over = state_->folder.steps();
  std::erase_if(state_->passed_over, [&](int64_t s) { return s <= step; });
}

void CheckpointWriter::save(const CheckpointContent& content) {
  const Clock::time_point start = Clock::now();
  State& s = *state_;
  CheckpointContent own = checked(content);
  s.wait();
  s.failure.clear();
  const size_t copied = own.last ? 0 : s.copy_pieces(own);
  s.start(std::make_shared<CheckpointSave>(s.options, s.sequence++, std::move(own), s.closing),
          copied);
  std::lock_guard lock(s.mutex);
  s.stats.stall_seconds += seconds_since(start);
}

bool CheckpointWriter::settled() {
  const Clock::time_point start = Clock::now();
  state_->wait();
  std::lock_guard lock(state_->mutex);
  state_->stats.stall_seconds += seconds_since(start);
  return state_->failure.empty();
}

void CheckpointWriter::finish() {
  if (!settled()) fail_data(state_->failure);
}

CheckpointStats CheckpointWriter::stats() const {
  std::lock_guard lock(state_->mutex);
  return state_->stats;
}

}  // namespace shoestring
