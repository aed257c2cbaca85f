#include "launcher/mesh_command.h"

#include "core/check.h"
#include "core/text.h"
#include "launcher/config.h"
#include "launcher/layout_text.h"
#include "launcher/mesh_layout.h"
#include "launcher/run_config.h"
#include "parallel/comm/rank_environment.h"

namespace shoestring {

std::string mesh_text(const MeshOptions& options) {
  const auto place = rank_place();
  if (place && place->size > 1) {
    fail_usage(cat("mesh looks at a layout in one process, but ", place->size,
                   " were started; start it alone, with --ranks ", place->size));
  }
  const auto config = read_config<RunConfig>({options.config, options.overrides});
  const int ranks = options.ranks.value_or(static_cast<int>(ranks_of(config)));
  return options.json ? layout_json(config, ranks) : layout_text(config, ranks, true);
}

}  // namespace shoestring
