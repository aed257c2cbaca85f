#pragma once
// The folder of a run: config.toml (resolved), metrics.jsonl, summary.json, checkpoints/,
// tensorboard/, trace.json, tokenizer.json (a copy, so that the run can be read by itself).

#include <optional>
#include <string>
#include <string_view>

namespace shoestring {

class RunDirectory {
 public:
  explicit RunDirectory(std::string path) : path_(std::move(path)) {}
  const std::string& path() const { return path_; }
  std::string metrics() const { return path_ + "/metrics.jsonl"; }
  std::string tensorboard() const { return path_ + "/tensorboard"; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string trace() const { return path_ + "/trace.json"; }
  std::string config() const { return path_ + "/config.toml"; }

  // Usage error when the folder is another model: a Hugging Face folder, whose weights every
  // command would take for the run's, or one checkpoint.
  void require_no_model() const;
  void create() const;
  // Replaces a file as a whole: temporary name, fsync, rename.
  void write_text(std::string_view name, std::string_view text) const;
  std::optional<std::string> read_text(std::string_view name) const;

 private:
  std::string path_;
};

}  // namespace shoestring
