#include "io/checkpoint_save.h"

#include <algorithm>
#include <filesystem>
#include <thread>
#include <utility>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t manifest_limit = uint64_t{1} << 28;
constexpr const char* failed_marker = "/failed";
constexpr std::chrono::milliseconds longest_pause{50};
constexpr std::chrono::seconds grace{5};  // for peers, when the run is ending

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

std::string rank_note(const std::string& folder, int rank) {
  const std::string file = name_of_rank_file(rank);
  return cat(folder, "/", file.substr(0, file.size() - 3), ".json");
}

// Readers see the whole text or no file.
void write_note(const std::string& path, const std::string& text) {
  DurableFile file(path + ".part", DurableFile::Mode::create);
  file.append(text);
  file.sync();
  file.close();
  rename_durably(path + ".part", path);
}

void remove_quietly(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);
}

// What no rank has thought its own would be missed at the next start only.
void require_expected(const std::map<std::string, TensorPieces>& tensors,
                      const CheckpointContent& content) {
  for (const auto& [name, shape] : content.expected) {
    const auto at = tensors.find(name);
    if (at == tensors.end()) fail_data(cat("no rank wrote tensor ", name, " ", shape.text()));
    const Shape& written = at->second.pieces.front().piece->shape;
    if (written != shape) {
      fail_data(cat("tensor ", name, " is ", shape.text(), " but was written as ", written.text()));
    }
  }
}

}  // namespace

CheckpointSave::CheckpointSave(const CheckpointOptions& options, int64_t sequence,
                               CheckpointContent content, const std::atomic<bool>& closing)
    : options_(options),
      folder_(options.directory),
      content_(std::move(content)),
      temporary_(folder_.temporary_path(content_.step, sequence)),
      closing_(closing) {}

void CheckpointSave::begin() {
  make_folder(temporary_);
  file_.emplace(temporary_, options_, content_);
}

void CheckpointSave::write(size_t i) {
  const TensorPiece& piece = content_.pieces[i];
  piece.data == nullptr&& piece.read ? file_->write(i, piece.read) : file_->write(i, piece.data);
}

void CheckpointSave::commit() {
  StoredFile own = file_->finish();
  bytes_ = static_cast<int64_t>(own.bytes);
  if (options_.rank == 0) return lead(std::move(own));
  write_note(rank_note(temporary_, options_.rank), rank_text(own));
  follow(own);
}

void CheckpointSave::lead(StoredFile own) {
  Manifest manifest{
      .step = content_.step, .config = content_.config, .state = content_.state, .files = {}};
  manifest.files.push_back(std::move(own));
  for (int rank = 1; rank < options_.ranks; ++rank) manifest.files.push_back(wait_for_rank(rank));
  require_expected(pieces_by_tensor(manifest, temporary_), content_);
  for (int rank = 1; rank < options_.ranks; ++rank) remove_quietly(rank_note(temporary_, rank));
  write_note(temporary_ + "/manifest.json", manifest_text(manifest));
  folder_.commit(temporary_, content_.step);
}

StoredFile CheckpointSave::wait_for_rank(int rank) {
  const std::string path = rank_note(temporary_, rank);
  wait_until([&] { return exists(path); }, cat("rank ", rank, " did not write its part"));
  StoredFile file = parse_rank(read_small_file(path, manifest_limit), path);
  if (file.rank != rank) fail_data(cat(path, " is about rank ", file.rank));
  return file;
}

void CheckpointSave::follow(const StoredFile& own) {
  bool failed = false;
  wait_until([&] { return (failed = exists(temporary_ + failed_marker)) || !exists(temporary_); },
             "rank 0 did not finish the checkpoint");
  if (failed) fail_data("another rank could not write its part");
  const std::string path = folder_.final_path(content_.step) + "/manifest.json";
  const Manifest manifest = parse_manifest(read_small_file(path, manifest_limit), path);
  const auto rank = static_cast<size_t>(options_.rank);
  if (manifest.files.size() <= rank || rank_text(manifest.files[rank]) != rank_text(own)) {
    fail_data(cat(path, " does not list what rank ", rank, " has written"));
  }
}

void CheckpointSave::wait_until(const std::function<bool()>& look, const std::string& what) {
  const Clock::time_point start = Clock::now();
  Clock::time_point end = start + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(options_.deadline_seconds));
  bool hurried = false;
  for (std::chrono::milliseconds pause{1}; !look(); pause = std::min(pause * 2, longest_pause)) {
    if (closing_ && !std::exchange(hurried, true)) end = std::min(end, Clock::now() + grace);
    if (Clock::now() >= end) {
      const double waited = std::chrono::duration<double>(Clock::now() - start).count();
      fail_data(cat(what, " within ", waited, " seconds"));
    }
    std::this_thread::sleep_for(pause);
  }
}

bool CheckpointSave::give_up(const std::string& message) {
  file_.reset();
  if (options_.ranks == 1) {
    remove_folder(temporary_);
    return false;
  }
  // The folder stays, without data, until the other ranks have seen it.
  remove_quietly(cat(temporary_, "/", name_of_rank_file(options_.rank)));
  try {
    if (options_.rank == 0) {
      DurableFile(temporary_ + failed_marker, DurableFile::Mode::create).close();
      return false;
    }
    if (exists(temporary_ + failed_marker)) return true;
    if (!exists(temporary_)) return false;
    write_note(rank_note(temporary_, options_.rank),
               rank_error_text(cat("rank ", options_.rank, ": ", message)));
    return true;
  } catch (const Error&) {
    // Not even a short note fits on the disk: the other ranks wait until their deadline.
    return false;
  }
}

void save_checkpoint(const std::string& directory, CheckpointContent content) {
  const CheckpointOptions options{.directory = directory};
  const std::atomic<bool> closing = false;
  for (const TensorPiece& piece : content.pieces) check_piece(piece);
  CheckpointSave save(options, 0, std::move(content), closing);
  try {
    save.begin();
    for (size_t i = 0; i < save.content().pieces.size(); ++i) save.write(i);
    save.commit();
  } catch (const std::exception& error) {
    save.give_up(error.what());
    throw;
  }
}

}  // namespace shoestring
