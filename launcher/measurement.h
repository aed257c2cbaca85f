#pragma once
// What every measuring command prints: a table for people, or a JSON list of
// {"name", "value", "unit", "goal", "met"}.

#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace shoestring {

struct Measurement {
  std::string name;
  double value = 0;
  std::string unit;
  std::optional<double> goal = {};
  bool at_most = false;  // the goal is an upper bound

  std::optional<bool> met() const;  // empty without a goal
};

void print_measurements(const std::vector<Measurement>& rows, bool json, std::ostream& out);

}  // namespace shoestring
