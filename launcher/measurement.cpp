#include "launcher/measurement.h"

#include <algorithm>
#include <iomanip>

#include "nlohmann/json.hpp"

namespace shoestring {

std::optional<bool> Measurement::met() const {
  if (!goal) return std::nullopt;
  return at_most ? value <= *goal : value >= *goal;
}

void print_measurements(const std::vector<Measurement>& rows, bool json, std::ostream& out) {
  if (json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Measurement& m : rows) {
      nlohmann::ordered_json row = {{"name", m.name}, {"value", m.value}, {"unit", m.unit}};
      row["goal"] = m.goal ? nlohmann::ordered_json(*m.goal) : nlohmann::ordered_json();
      row["met"] = m.goal ? nlohmann::ordered_json(*m.met()) : nlohmann::ordered_json();
      list.push_back(std::move(row));
    }
    out << list.dump(2) << "\n";
    return;
  }
  size_t width = 4;
  for (const Measurement& m : rows) width = std::max(width, m.name.size());
  for (const Measurement& m : rows) {
    out << std::left << std::setw(static_cast<int>(width) + 2) << m.name << std::right
        << std::setw(12) << std::setprecision(6) << m.value << "  " << m.unit;
    if (m.goal) {
      out << "  (goal " << (m.at_most ? "<= " : ">= ") << *m.goal << ", "
          << (*m.met() ? "met" : "missed") << ")";
    }
    out << "\n";
  }
}

}  // namespace shoestring
