#pragma once
// A trace file as a test sees it: events by rank and lane, in the order of their times.

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/io/store_fixture.h"

namespace shoestring {

class TraceReader {
 public:
  explicit TraceReader(const std::string& path)
      : trace_(nlohmann::json::parse(read_file(path)).at("traceEvents")) {}

  // Complete events of a rank's lane; none where there is no such lane.
  std::vector<nlohmann::json> events(int rank, const std::string& lane) const {
    int thread = -1;
    for (const auto& e : trace_) {
      if (e.at("pid") == rank && e.at("name") == "thread_name" && e.at("args").at("name") == lane) {
        thread = e.at("tid");
      }
    }
    std::vector<nlohmann::json> found;
    for (const auto& e : trace_) {
      if (e.at("ph") == "X" && e.at("pid") == rank && e.at("tid") == thread) found.push_back(e);
    }
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
      return a.at("ts").template get<double>() < b.at("ts").template get<double>();
    });
    return found;
  }
  std::vector<std::string> names(int rank, const std::string& lane) const {
    std::vector<std::string> names;
    for (const auto& e : events(rank, lane)) names.push_back(e.at("name"));
    return names;
  }
  std::vector<std::string> lanes(int rank) const {
    std::vector<std::string> lanes;
    for (const auto& e : trace_) {
      if (e.at("pid") == rank && e.at("name") == "thread_name") {
        lanes.push_back(e.at("args").at("name"));
      }
    }
    return lanes;
  }

 private:
  nlohmann::json trace_;
};

}  // namespace shoestring
