#pragma once
// `shoestring config show | diff | schema | docs`. Each returns the text it prints.

#include <string>
#include <vector>

namespace shoestring {

struct ConfigShowOptions {
  std::string file;                    // empty: the defaults
  std::vector<std::string> overrides;  // "section.key=value"
  bool comments = false;               // each key's meaning above it
};

// The resolved config as TOML, its hash in the first line. Mistakes are usage errors.
std::string config_show(const ConfigShowOptions& options);

// One line a key that differs; "no differences" when there is none.
std::string config_diff(const std::string& left_file, const std::string& right_file);

std::string config_schema_text();
std::string config_docs_text();

}  // namespace shoestring
