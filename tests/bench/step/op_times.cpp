#include "tests/bench/step/op_times.h"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <vector>

#include "core/text.h"

namespace shoestring {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void OpTimes::begin(std::string_view op, Phase phase) {
  constexpr std::string_view names[] = {"", ", input gradient", ", weight gradient"};
  open_ = cat(op, names[static_cast<int>(phase)]);
  began_ = now();
}

void OpTimes::end() {
  Row& row = rows_[open_];
  row.seconds += now() - began_;
  ++row.calls;
}

void OpTimes::print(std::ostream& out, int steps) const {
  std::vector<std::pair<std::string, Row>> rows(rows_.begin(), rows_.end());
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
