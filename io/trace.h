#pragma once
// Chrome / Perfetto trace files: complete events ("X") on one process a rank and one lane a stream.

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

// Thread-safe. Times are seconds since the writer was made.
class TraceWriter {
 public:
  TraceWriter();
  double now() const;
  double at(std::chrono::steady_clock::time_point time) const;
  // `lane`: "compute", "data", "communication", ...; `detail` is shown when the event is selected.
  void event(int rank, std::string_view lane, std::string_view name, double begin, double end,
             std::string_view detail = "");
  // A JSON list of the events, with names for ranks and lanes.
  std::string text() const;
  void write(const std::string& path) const;
  size_t events() const;

 private:
  struct Item {
    int rank, lane;
    std::string name, detail;
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
