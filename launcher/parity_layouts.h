#pragma once
// Which layouts `shoestring parity` runs: the config's own, all of so many ranks, or a file's.
// Each is checked before the first one runs.

#include <string>
#include <string_view>
#include <vector>

#include "launcher/run_config.h"

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
  std::vector<std::string> places;     // of these, "layouts.txt:3:6"; empty: of no file
  std::vector<std::string> mistakes;   // words that are no overrides: "layouts.txt:3:6: ..."
};

// One a line; blank lines and what follows `#` are skipped, blanks inside brackets do not part
// words. A usage error where there is none.
std::vector<ParityLayout> parse_layouts(std::string_view text, const std::string& file);
// Every legal layout of so many ranks.
std::vector<ParityLayout> all_layouts(const RunConfig& config, int64_t ranks);

struct CheckedLayout {
  ParityLayout layout;
  RunConfig config;
};
// A usage error has every complaint of every layout: of options that have no effect, of layouts
// that are not possible, and of those with one rank, which leave nothing to compare. Usage error,
// too, in one of several processes.
std::vector<CheckedLayout> checked_layouts(const ParityOptions& options);

}  // namespace shoestring
