#include "launcher/config_complaints.h"

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

}  // namespace

void ConfigComplaints::add(std::string position, std::string_view key, std::string message) {
  complaints_.push_back({std::move(position), std::string(key), std::move(message)});
}

void ConfigComplaints::add_unknown(const FieldList& root, const FieldList& section,
                                   const std::string& section_key, std::string_view name,
                                   const std::string& position) {
  std::string message = cat("unknown key '", name, "'");
  if (!section_key.empty()) append(message, " in [", section_key, "]");
  std::vector<std::string> known = names_of(section), elsewhere;
  find_elsewhere(root, "", name, elsewhere);
  if (std::string nearest = nearest_name(name, known); !nearest.empty()) {
    append(message, "; did you mean '", nearest, "'?");
  } else if (!elsewhere.empty()) {
    append(message, "; did you mean '", elsewhere.front(), "'?");
  } else {
    std::string all;
    for (const std::string& k : known) append(all, all.empty() ? "" : ", ", k);
    append(message, "; the keys here are ", all);
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

void ConfigComplaints::validate(const FieldList& root) { validate(root, ""); }

void ConfigComplaints::validate(const FieldList& list, const std::string& section) {
  if (list.validate) {
    Complaints found;
    list.validate(found);
    for (const Complaints::Item& item : found.items()) {
      std::string key = join_key(section, item.key);
      if (!has(key)) add(position_of(key), key, cat(key, ": ", item.message));
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
