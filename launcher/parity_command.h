#pragma once
// `shoestring parity CONFIG`: one step under each layout beside one rank's.

#include <ostream>
#include <string>
#include <vector>

#include "launcher/parity.h"

namespace shoestring {

struct ParityOptions {
  std::string config;
  std::vector<std::string> overrides;
  std::string layouts;  // "all", a file, or empty: the config's own
  int64_t ranks = 0;    // of "all"; 0: the config's
  bool json = false;
};

// A layout as a line of words: "tp=2 pp=2 schedule=zb-v zero=1 recompute=block".
struct ParityLayout {
  std::string name;                    // the line
  std::vector<std::string> overrides;  // "mesh.tp=2"
};

// One a line; blank lines and what follows `#` are skipped. Usage errors name file, line and word.
std::vector<ParityLayout> parse_layouts(std::string_view text, const std::string& file);
// Every legal layout of so many ranks.
std::vector<ParityLayout> all_layouts(const RunConfig& config, int64_t ranks);

// True when every layout meets its limits.
bool run_parity(const ParityOptions& options, std::ostream& out);

}  // namespace shoestring
