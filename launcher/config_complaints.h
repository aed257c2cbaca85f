#pragma once
// What is wrong with a config, gathered so that a user sees all of it at once, and where each key
// was set.

#include <string>
#include <string_view>
#include <vector>

#include "launcher/config_fields.h"

namespace shoestring {

class ConfigComplaints {
 public:
  // `position`: "a.toml:3:9", "--set #2" or "" when nothing set the key. The message starts with
  // the key where one is concerned.
  void add(std::string position, std::string_view key, std::string message);
  // Names the nearest key of the section, or the same key in another section.
  void add_unknown(const FieldList& root, const FieldList& section, const std::string& section_key,
                   std::string_view name, const std::string& position);

  // Later positions replace earlier ones: validate() complains where the key was set last. The key
  // "" stands for the file, where nothing else is known.
  void was_set(const std::string& key, std::string position);
  const KeyPositions& positions() const { return positions_; }

  // Runs every validate(); a key that was already complained of is not complained of again.
  void validate(const FieldList& root);

  // Throws one usage error that holds every complaint, in the order they were found.
  void throw_if_any() const;

 private:
  struct Complaint {
    std::string position, key, message;
  };
  bool has(std::string_view key) const;
  std::string position_of(std::string key) const;
  void validate(const FieldList& list, const std::string& section);

  std::vector<Complaint> complaints_;
  KeyPositions positions_;
};

}  // namespace shoestring
