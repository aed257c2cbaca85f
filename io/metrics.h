#pragma once
// metrics.jsonl: one JSON object a step, each step once, also after a resume.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace shoestring {

// An ordered list of named values; floats are written with full precision (they read back exactly),
// a value that is not finite as null.
class MetricsRecord {
 public:
  using Number = std::variant<int64_t, double, std::string>;
  void set(std::string name, double value) { items_.emplace_back(std::move(name), value); }
  void set(std::string name, int64_t value) { items_.emplace_back(std::move(name), value); }
  void set(std::string name, std::string value) {
    items_.emplace_back(std::move(name), std::move(value));
  }
  const std::vector<std::pair<std::string, Number>>& items() const { return items_; }
  std::string json() const;  // one line, without the line feed

 private:
  std::vector<std::pair<std::string, Number>> items_;
};

// Appends records to a file; every record is one write. When a run resumes after `last_step`, the
// lines of later steps and a torn last line are cut off first, so that replayed steps replace them.
class MetricsWriter {
 public:
  // `last_step`: the step of the checkpoint that the run continues from; -1 starts a new file. A
  // `replacement` stands behind the kept lines from the moment that the file changes. A garbled
  // line among good ones is left out with a warning that says which.
  MetricsWriter(const std::string& path, int64_t last_step,
                const MetricsRecord* replacement = nullptr);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;
  void write(const MetricsRecord& record);
  // Returns when every record is on the disk: before a checkpoint is saved, so that after a power
  // cut no checkpoint is ahead of the lines.
  void sync();
  // The steps up to `last_step` without a line, of which the file should hold all from 1 on:
  // "3 to 5, 9"; empty when none is missing.
  const std::string& missing() const { return missing_; }

 private:
  std::string path_, missing_;
  int file_ = -1;
};

}  // namespace shoestring
