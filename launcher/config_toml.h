#pragma once
// TOML into config fields; the only file that knows toml++. launcher/config.h is the door.

#include <string>
#include <string_view>

#include "launcher/config_complaints.h"
#include "launcher/config_fields.h"

namespace shoestring {

class TomlReader {
 public:
  TomlReader(const FieldList& root, ConfigComplaints& complaints)
      : root_(root), complaints_(complaints) {}

  void read_file(const std::string& path);
  void read_text(std::string_view text, const std::string& name);
  // "section.key=value"; `number` counts from 1, as in "--set #2". The value is TOML; what is not
  // TOML is taken as text, so quotes are seldom needed.
  void read_override(std::string_view assignment, int number);

 private:
  void read_file(const std::string& path, const std::string& included_from);

  const FieldList& root_;
  ConfigComplaints& complaints_;
  std::vector<std::string> open_files_;  // the chain of includes, to find circles
};

}  // namespace shoestring
