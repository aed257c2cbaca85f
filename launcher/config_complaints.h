#pragma once
// What is wrong with a config, gathered so that a user sees all of it at once, and where each key
// was set.

#include <string>
#include <string_view>
#include <vector>

#include "launcher/config_fields.h"

namespace shoestring {

// Where the key first stands in the text, as a word of its own ("heads" is not in "kv_heads");
// npos: nowhere.
size_t place_of_key(std::string_view text, std::string_view key);
bool names_key(std::string_view text, std::string_view key);
// Does the position say that --set gave the value?
bool by_override(const std::string& position);

class ConfigComplaints {
 public:
  // `position`: "a.toml:3:9", "--set #2" or "" when nothing set the key. The message starts with
  // the key where one is concerned.
  void add(std::string position, std::string_view key, std::string message);
  // Of a file that could not be read or understood: what it leaves unset is no mistake of its own,
  // so validate() stays silent.
  void add_unread(std::string position, std::string message);
  // Names the nearest key of the section, or the same key in another section.
  void add_unknown(const FieldList& root, const FieldList& section, const std::string& section_key,
                   std::string_view name, const std::string& position);

  // Later positions replace earlier ones: validate() complains where the key was set last. The key
  // "" stands for the file, where nothing else is known.
  void was_set(const std::string& key, std::string position);
  const KeyPositions& positions() const { return positions_; }

  // Runs every validate(); a rule between keys stands at the one of those it names that --set
  // changed, if any, else at its own key. A key that was already complained of is not complained of
  // again, nor is a rule that names a key whose value could not be taken.
  void validate(const FieldList& root);

  // Throws one usage error that holds every complaint, in the order they were found.
  void throw_if_any() const;

 private:
  struct Complaint {
    std::string position, key, message;
  };
  bool has(std::string_view key) const;
  bool names_misread(std::string_view message, const std::string& section) const;
  std::string position_of(std::string key) const;
  std::string position_of_rule(const std::string& key, const std::string& section,
                               std::string_view message) const;
  void validate(const FieldList& list, const std::string& section);

  std::vector<Complaint> complaints_;
  KeyPositions positions_;
  size_t misread_ = 0;  // complaints of the reading itself: the first ones
  bool unread_ = false;
};

}  // namespace shoestring
