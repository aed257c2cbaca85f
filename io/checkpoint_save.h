#pragma once
// One save of one rank, from an empty temporary folder to the checkpoint's final name. Ranks meet
// in the file system only: each writes its file and then a small rank_0000N.json about it; rank 0
// waits for all of those, writes the manifest and renames the folder; the others wait for that.

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "io/checkpoint_file.h"
#include "io/checkpoint_folder.h"

namespace shoestring {

class CheckpointSave {
 public:
  // Save number `sequence` of the run. `closing`: once true, peers get a few seconds more only.
  CheckpointSave(const CheckpointOptions& options, int64_t sequence, CheckpointContent content,
                 const std::atomic<bool>& closing);

  void begin();          // makes the folder and lays the file out
  void write(size_t i);  // piece i, from its data or its function
  void commit();         // all pieces are written; returns when the checkpoint has its final name
  // After any of these threw: tells the other ranks and frees the disk space. True on another rank
  // than 0 when rank 0 gets to know of the failure or had told of its own.
  bool give_up(const std::string& message);

  const CheckpointContent& content() const { return content_; }
  int64_t bytes() const { return bytes_; }  // of this rank's file, after commit()
  const std::string& temporary() const { return temporary_; }

 private:
  void lead(StoredFile own);
  void follow(const StoredFile& own);
  StoredFile wait_for_rank(int rank);
  // Calls `look` until it returns true; a data error with `what` when the time is up.
  void wait_until(const std::function<bool()>& look, const std::string& what);

  const CheckpointOptions& options_;
  CheckpointFolder folder_;
  CheckpointContent content_;
  std::string temporary_;
  const std::atomic<bool>& closing_;
  std::optional<CheckpointFile> file_;
  int64_t bytes_ = 0;
};

// One whole checkpoint of one rank below `directory`, at once: for models that come from elsewhere
// and may be larger than the memory. On failure nothing stays.
void save_checkpoint(const std::string& directory, CheckpointContent content);

}  // namespace shoestring
