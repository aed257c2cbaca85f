#include "launcher/run_history.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>

#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

constexpr std::streamoff longest_line = 1 << 20;

// The last line that ends with a line feed; a crash may have torn what follows.
std::string last_line(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return "";
  const std::streamoff size = in.tellg();
  const std::streamoff begin = std::max<std::streamoff>(0, size - longest_line);
  std::string text(static_cast<size_t>(size - begin), '\0');
  in.seekg(begin);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  const size_t end = text.rfind('\n');
  if (!in || end == std::string::npos) return "";
  text.resize(end);
  const size_t before = text.rfind('\n');
  return before == std::string::npos ? text : text.substr(before + 1);
}

}  // namespace

std::optional<MetricsRecord> last_metrics(const RunDirectory& directory) {
  const auto object = nlohmann::ordered_json::parse(last_line(directory.metrics()), nullptr, false);
  if (!object.is_object()) return std::nullopt;
  MetricsRecord record;
  for (const auto& [name, value] : object.items()) {
    if (value.is_number_integer()) {
      record.set(name, value.get<int64_t>());
    } else if (value.is_string()) {
      record.set(name, value.get<std::string>());
    } else {  // null stands for what is not finite
      record.set(
          name, value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN());
    }
  }
  return record;
}

double number_in(const MetricsRecord& record, std::string_view name, double otherwise) {
  for (const auto& [key, value] : record.items()) {
    if (key != name) continue;
    if (const int64_t* n = std::get_if<int64_t>(&value)) return static_cast<double>(*n);
    const double* x = std::get_if<double>(&value);
    return x && std::isfinite(*x) ? *x : otherwise;
  }
  return otherwise;
}

double seconds_so_far(const RunDirectory& directory) {
  const auto line = last_metrics(directory);
  const double at_line = line ? number_in(*line, "wall_seconds", 0) : 0;
  const auto text = directory.read_text("summary.json");
  if (!text) return at_line;
  const auto summary = nlohmann::ordered_json::parse(*text, nullptr, false);
  const bool known =
      summary.is_object() && summary.contains("seconds") && summary["seconds"].is_number();
  return known ? std::max(at_line, summary["seconds"].get<double>()) : at_line;
}

MetricsRecord without(const MetricsRecord& record, std::initializer_list<std::string_view> names) {
  MetricsRecord kept;
  for (const auto& [key, value] : record.items()) {
    const bool dropped = std::any_of(names.begin(), names.end(),
                                     [&, k = &key](auto name) { return k->starts_with(name); });
    if (dropped) continue;
    std::visit([&, k = &key](const auto& x) { kept.set(*k, x); }, value);
  }
  return kept;
}

}  // namespace shoestring
