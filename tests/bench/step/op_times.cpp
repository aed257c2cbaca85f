#include "tests/bench/step/op_times.h"

#include <algorithm>
#include <fstream>
#include <iomanip>
#include <map>
#include <vector>

#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

struct Row {
  double seconds = 0;
  int64_t calls = 0;
};

}  // namespace

void print_op_times(std::ostream& out, const std::string& trace, int steps) {
  std::ifstream file(trace);
  const auto events = nlohmann::json::parse(file).at("traceEvents");
  std::map<std::string, Row> by_name;
  for (const auto& event : events) {
    if (event.at("ph") != "X" || event.at("pid") != 0 || event.at("cat") != "ops") continue;
    Row& row = by_name[event.at("name")];
    row.seconds += event.at("dur").get<double>() * 1e-6;
    ++row.calls;
  }
  std::vector<std::pair<std::string, Row>> rows(by_name.begin(), by_name.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  double all = 0;
  for (const auto& [name, row] : rows) all += row.seconds;
  out << std::fixed << std::setprecision(1);
  for (const auto& [name, row] : rows) {
    out << std::setw(9) << row.seconds / steps * 1e3 << " ms " << std::setw(5)
        << 100 * row.seconds / all << " %  " << std::setw(4) << row.calls / steps << " x  " << name
        << "\n";
  }
  out << std::setw(9) << all / steps * 1e3 << " ms in ops\n";
}

}  // namespace shoestring
