#pragma once
// The folder of a run's checkpoints: names, temporary folders, replacing, what is kept.

#include <cstdint>
#include <string>
#include <vector>

namespace shoestring {

class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::string directory) : directory_(std::move(directory)) {}

  const std::string& directory() const { return directory_; }
  std::string final_path(int64_t step) const;  // "<directory>/step_00001000"
  // Where save number `sequence` of a run is written; no two saves of a run share one.
  std::string temporary_path(int64_t step, int64_t sequence) const;

  // Steps of the folders that are called as checkpoints are, ascending; empty when there is none.
  std::vector<int64_t> steps() const;

  // At the start of a run: puts back a checkpoint that was being replaced, removes what a dead run
  // left. Only names that this class makes are touched.
  void clean() const;
  // Gives the written, synced folder its final name, replacing a checkpoint of the same step in one
  // atomic exchange.
  void commit(const std::string& temporary, int64_t step) const;
  // Deletes all but `latest`, the `keep` - 1 highest other ones and the multiples of `keep_every`.
  // What has no manifest or was `passed_over` as broken is not one of the kept: it stays only while
  // there are fewer good ones above it than wanted.
  void retain(int64_t latest, int64_t keep, int64_t keep_every,
              const std::vector<int64_t>& passed_over = {}) const;

 private:
  bool has_manifest(int64_t step) const;
  void discard(int64_t step) const;
  std::string directory_;
};

// Data errors that name the folder.
void make_folder(const std::string& path);
void sync_folder(const std::string& path);
// Removes files and folders below; what cannot be removed stays.
void remove_folder(const std::string& path);

}  // namespace shoestring
