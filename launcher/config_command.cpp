#include "launcher/config_command.h"

#include "core/text.h"
#include "launcher/config.h"
#include "launcher/parameter_counts.h"
#include "launcher/run_config.h"

namespace shoestring {

std::string config_show(const ConfigShowOptions& options) {
  auto config = read_config<RunConfig>({.file = options.file, .overrides = options.overrides});
  return cat("# hash ", config_hash(config), "\n", dump_config(config, options.comments), "\n",
             comment_of_parameters(config.model));
}

std::string config_diff(const std::string& left_file, const std::string& right_file) {
  auto left = read_config<RunConfig>({.file = left_file, .overrides = {}});
  auto right = read_config<RunConfig>({.file = right_file, .overrides = {}});
  std::string text;
  for (const ConfigDifference& d : diff_configs(left, right)) {
    append(text, d.key, ": ", d.left.empty() ? "(none)" : d.left, " -> ",
           d.right.empty() ? "(none)" : d.right, "\n");
  }
  return text.empty() ? "no differences\n" : text;
}

std::string config_schema_text() { return config_schema<RunConfig>("shoestring run"); }
std::string config_docs_text() { return config_reference<RunConfig>(); }

}  // namespace shoestring
