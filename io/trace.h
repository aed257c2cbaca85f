#pragma once
// Chrome / Perfetto trace files: complete events ("X") on one process a rank and one lane a stream.

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace shoestring {

// What is shown when an event is selected, by name: {"bytes", 4096}.
using TraceFigures = std::vector<std::pair<std::string, std::variant<int64_t, std::string>>>;

// Thread-safe. Times are seconds since the writer was made.
class TraceWriter {
 public:
  // `lanes`: those to show first, in this order; others follow as events name them.
  explicit TraceWriter(std::vector<std::string> lanes = {});
  double now() const;
  double at(std::chrono::steady_clock::time_point time) const;
  // `lane`: "compute", "data", "communication world", ...; its first word is the category.
  void event(int rank, std::string_view lane, std::string_view name, double begin, double end,
             TraceFigures figures = {});
  // A JSON list of the events, with names for ranks and lanes.
  std::string text() const;
  void write(const std::string& path) const;
  size_t events() const;

 private:
  struct Item {
    int rank, lane;
    std::string name;
    TraceFigures figures;
    double begin, end;
  };
  int lane_number(std::string_view lane);
  mutable std::mutex mutex_;
  double start_;
  std::vector<std::string> lanes_;
  std::vector<Item> items_;
};

// Writes {"traceEvents": [...]} with the events of several writers, each a text() of one: ranks in
// processes of their own. Temporary name, then rename.
void write_trace(const std::string& path, const std::vector<std::string>& texts);

}  // namespace shoestring
