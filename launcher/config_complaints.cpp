#include "launcher/config_complaints.h"

#include <algorithm>

#include "core/check.h"
#include "core/nearest_name.h"
#include "core/text.h"

namespace shoestring {
namespace {

// Every full key of the tree whose last part is `name`: the right key may stand in the wrong
// section.
void find_elsewhere(const FieldList& list, const std::string& section, std::string_view name,
                    std::vector<std::string>& found) {
  for (const FieldNode& node : list.nodes) {
    std::string key = join_key(section, node.name);
    if (node.name == name) found.push_back(key);
    if (const auto* child = std::get_if<FieldList>(&node.content)) {
      find_elsewhere(*child, key, name, found);
    }
  }
}

bool is_part_of_key(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

}  // namespace

size_t place_of_key(std::string_view text, std::string_view key) {
  for (size_t at = text.find(key); at != std::string_view::npos; at = text.find(key, at + 1)) {
    const size_t end = at + key.size();
    const bool begins = at == 0 || !is_part_of_key(text[at - 1]);
    if (begins && (end == text.size() || !is_part_of_key(text[end]))) return at;
  }
  return std::string_view::npos;
}

bool names_key(std::string_view text, std::string_view key) {
  return place_of_key(text, key) != std::string_view::npos;
}

bool by_override(const std::string& position) { return position.starts_with("--set"); }

void ConfigComplaints::add(std::string position, std::string_view key, std::string message) {
  complaints_.push_back({std::move(position), std::string(key), std::move(message)});
}

void ConfigComplaints::add_unread(std::string position, std::string message) {
  add(std::move(position), "", std::move(message));
  unread_ = true;
}

void ConfigComplaints::add_unknown(const FieldList& root, const FieldList& section,
                                   const std::string& section_key, std::string_view name,
                                   const std::string& position) {
  std::string message = cat("unknown key '", name, "'");
  if (!section_key.empty()) append(message, " in [", section_key, "]");
  std::vector<std::string> known = names_of(section), elsewhere;
  find_elsewhere(section, section_key, name, elsewhere);  // what is below lies nearest
  find_elsewhere(root, "", name, elsewhere);
  const std::string nearest = nearest_name(name, known);
  if (!nearest.empty()) {
    append(message, "; did you mean '", nearest, "'?");
  } else if (!elsewhere.empty()) {
    append(message, "; did you mean '", elsewhere.front(), "'?");
  }
  // A key of that name in another section may be a guess.
  if (nearest.empty() && (elsewhere.empty() || !section_key.empty())) {
    std::string all;
    for (const std::string& k : known) append(all, all.empty() ? "" : ", ", k);
    append(message, elsewhere.empty() ? "; the keys here are " : " The keys here are ", all);
  }
  add(position, join_key(section_key, name), std::move(message));
}

void ConfigComplaints::was_set(const std::string& key, std::string position) {
  positions_[key] = std::move(position);
}

bool ConfigComplaints::has(std::string_view key) const {
  for (const Complaint& c : complaints_) {
    if (c.key == key) return true;
  }
  return false;
}

std::string ConfigComplaints::position_of(std::string key) const {
  // A key that nobody set stands where its section was opened, or in the file as a whole.
  while (true) {
    if (auto found = positions_.find(key); found != positions_.end()) return found->second;
    size_t dot = key.rfind('.');
    if (dot == std::string::npos) break;
    key.resize(dot);
  }
  const auto whole = positions_.find("");
  return whole == positions_.end() ? "" : whole->second;
}

// Whoever broke a rule between keys by --set looks for the mistake there, not in the file.
std::string ConfigComplaints::position_of_rule(const std::string& key, const std::string& section,
                                               std::string_view message) const {
  const auto own = positions_.find(key);
  if (own != positions_.end() && by_override(own->second)) return own->second;
  const std::string start = section.empty() ? "" : section + ".";
  std::string in_file;
  for (const auto& [other, position] : positions_) {
    const bool here = other.starts_with(start) && other.size() > start.size();
    const bool named = here && names_key(message, std::string_view(other).substr(start.size()));
    if (!named && (other.empty() || !names_key(message, other))) continue;
    if (by_override(position)) return position;
    if (in_file.empty()) in_file = position;
  }
  return own == positions_.end() && !in_file.empty() ? in_file : position_of(key);
}

void ConfigComplaints::validate(const FieldList& root) {
  misread_ = complaints_.size();
  if (!unread_) validate(root, "");
}

bool ConfigComplaints::names_misread(std::string_view message, const std::string& section) const {
  const std::string start = section.empty() ? "" : section + ".";
  return std::any_of(complaints_.begin(), complaints_.begin() + static_cast<int64_t>(misread_),
                     [&](const Complaint& c) {
                       if (c.key.empty()) return false;
                       const bool here = c.key.starts_with(start) && c.key.size() > start.size();
                       return names_key(message, c.key) ||
                              (here && names_key(message, c.key.substr(start.size())));
                     });
}

void ConfigComplaints::validate(const FieldList& list, const std::string& section) {
  if (list.validate) {
    Complaints found;
    list.validate(found);
    for (const Complaints::Item& item : found.items()) {
      std::string key = join_key(section, item.key);
      if (!has(key) && !names_misread(item.message, section)) {
        const bool goes_on = item.message.starts_with("= ");  // "mesh.tp = 70000: ..."
        add(position_of_rule(key, section, item.message), key,
            cat(key, goes_on ? " " : ": ", item.message));
      }
    }
  }
  for (const FieldNode& node : list.nodes) {
    std::string key = join_key(section, node.name);
    if (const auto* child = std::get_if<FieldList>(&node.content)) {
      validate(*child, key);
    } else if (const auto* array = std::get_if<TableArray>(&node.content)) {
      for (size_t i = 0; i < array->size(); ++i) validate(array->at(i), cat(key, ".", i));
    }
  }
}

void ConfigComplaints::throw_if_any() const {
  if (complaints_.empty()) return;
  std::string text;
  for (const Complaint& c : complaints_) {
    append(text, text.empty() ? "" : "\n", c.position, c.position.empty() ? "" : ": ", c.message);
  }
  if (complaints_.size() > 1) {
    text = cat("the configuration has ", complaints_.size(), " mistakes\n", text);
  }
  fail_usage(std::move(text));
}

}  // namespace shoestring
