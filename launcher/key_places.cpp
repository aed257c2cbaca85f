#include "launcher/key_places.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/text.h"
#include "launcher/config_complaints.h"

namespace shoestring {
namespace {

// "mesh." of a text that begins with "mesh.tp".
std::string_view section_of(std::string_view text) {
  const std::string_view word = text.substr(0, text.find(' '));
  const size_t dot = word.rfind('.');
  return dot == std::string_view::npos ? "" : word.substr(0, dot + 1);
}

// Keys that were set and take part, in the order of the text, then of `with`.
std::vector<std::string> keys_of(std::string_view text, const KeyPositions& positions,
                                 const std::vector<std::string>& with) {
  const std::string_view section = section_of(text);
  std::vector<std::pair<size_t, std::string>> named;
  for (const auto& [key, position] : positions) {
    if (key.find('.') == std::string::npos) continue;  // a section, or a mere word
    size_t at = place_of_key(text, key);
    if (at == std::string_view::npos && !section.empty() && key.starts_with(section)) {
      at = place_of_key(text, std::string_view(key).substr(section.size()));
    }
    if (at != std::string_view::npos) named.emplace_back(at, key);
  }
  std::sort(named.begin(), named.end());
  std::vector<std::string> keys;
  for (auto& [at, key] : named) keys.push_back(std::move(key));
  for (const std::string& key : with) {
    const bool is_there = std::find(keys.begin(), keys.end(), key) != keys.end();
    if (!is_there && positions.contains(key)) keys.push_back(key);
  }
  return keys;
}

}  // namespace

std::string with_places(std::string text, const KeyPositions& positions,
                        const std::vector<std::string>& with) {
  const std::vector<std::string> keys = keys_of(text, positions, with);
  if (keys.empty()) return text;
  std::string others;
  for (const std::string& key : keys) {
    if (text.starts_with(key) && place_of_key(text, key) == 0) continue;
    append(others, others.empty() ? " [" : ", ", key, ": ", positions.at(key));
  }
  return cat(positions.at(keys.front()), ": ", text, others, others.empty() ? "" : "]");
}

}  // namespace shoestring
