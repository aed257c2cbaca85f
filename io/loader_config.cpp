#include "io/loader_config.h"

#include <algorithm>
#include <set>

#include "core/text.h"

namespace shoestring {

void LoaderConfig::validate(Complaints& c) const {
  std::set<std::string> labels;
  bool weighted = false;
  for (size_t i = 0; i < sources.size(); ++i) {
    const SourceConfig& source = sources[i];
    const std::string key = cat("sources.", i);
    if (source.path.empty()) c.add(key + ".path", "the path of a token store is missing");
    if (!labels.insert(source.label()).second) {
      c.add(key + ".name", cat("two sources are called \"", source.label(), "\""));
    }
    const bool trains = source.held_out.value_or(held_out) < 1;
    if (source.weight > 0 && !trains) {
      c.add(key + ".weight",
            cat("\"", source.label(), "\" is held out as a whole; give it the weight 0"));
    }
    weighted = weighted || source.weight > 0;
  }
  if (!sources.empty() && !weighted)
    c.add("sources", "no source has a weight above 0: there is nothing to train on");
}

}  // namespace shoestring
