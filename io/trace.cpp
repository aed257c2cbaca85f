#include "io/trace.h"

#include <chrono>
#include <set>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

nlohmann::json name_event(const char* kind, int process, int thread, const std::string& name) {
  return {
      {"ph", "M"}, {"name", kind}, {"pid", process}, {"tid", thread}, {"args", {{"name", name}}}};
}

}  // namespace

TraceWriter::TraceWriter(std::vector<std::string> lanes)
    : start_(clock_seconds()), lanes_(std::move(lanes)) {}

double TraceWriter::now() const { return clock_seconds() - start_; }

int TraceWriter::lane_number(std::string_view lane) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i] == lane) return static_cast<int>(i);
  }
  lanes_.emplace_back(lane);
  return static_cast<int>(lanes_.size()) - 1;
}

void TraceWriter::event(int rank, std::string_view lane, std::string_view name, double begin,
                        double end, TraceFigures figures) {
  std::lock_guard lock(mutex_);
  items_.push_back({rank, lane_number(lane), std::string(name), std::move(figures), begin, end});
}

size_t TraceWriter::events() const {
  std::lock_guard lock(mutex_);
  return items_.size();
}

double TraceWriter::at(std::chrono::steady_clock::time_point time) const {
  return std::chrono::duration<double>(time.time_since_epoch()).count() - start_;
}

std::string TraceWriter::text() const {
  std::lock_guard lock(mutex_);
  nlohmann::json list = nlohmann::json::array();
  std::set<std::pair<int, int>> named;
  for (const Item& item : items_) {
    if (named.insert({item.rank, -1}).second) {
      list.push_back(name_event("process_name", item.rank, 0, cat("rank ", item.rank)));
    }
    if (named.insert({item.rank, item.lane}).second) {
      list.push_back(
          name_event("thread_name", item.rank, item.lane, lanes_[static_cast<size_t>(item.lane)]));
      list.push_back({{"ph", "M"},
                      {"name", "thread_sort_index"},
                      {"pid", item.rank},
                      {"tid", item.lane},
                      {"args", {{"sort_index", item.lane}}}});
    }
    const std::string& lane = lanes_[static_cast<size_t>(item.lane)];
    nlohmann::json event = {{"ph", "X"},
                            {"name", item.name},
                            {"cat", lane.substr(0, lane.find(' '))},
                            {"pid", item.rank},
                            {"tid", item.lane},
                            {"ts", item.begin * 1e6},
                            {"dur", (item.end - item.begin) * 1e6}};
    for (const auto& [key, value] : item.figures) {
      std::visit([&](const auto& v) { event["args"][key] = v; }, value);
    }
    list.push_back(std::move(event));
  }
  return list.dump();
}

void TraceWriter::write(const std::string& path) const { write_trace(path, {text()}); }

void write_trace(const std::string& path, const std::vector<std::string>& texts) {
  const std::string temporary = path + ".new";
  RemoveOnExit remove(temporary);
  DurableFile out(temporary, DurableFile::Mode::create);
  out.append(R"({"displayTimeUnit":"ms","traceEvents":[)");
  bool first = true;
  for (const std::string& text : texts) {
    if (text.size() <= 2) continue;  // an empty list
    if (!std::exchange(first, false)) out.append(",");
    out.append(std::string_view(text).substr(1, text.size() - 2));
  }
  out.append("]}\n");
  out.close();
  rename_durably(temporary, path);
  remove.keep();
}

}  // namespace shoestring
