#include "launcher/mesh_command.h"

#include "launcher/config.h"
#include "launcher/layout_text.h"
#include "launcher/mesh_layout.h"
#include "launcher/run_config.h"

namespace shoestring {

std::string mesh_text(const MeshOptions& options) {
  const auto config = read_config<RunConfig>({options.config, options.overrides});
  const int ranks = options.ranks.value_or(static_cast<int>(ranks_of(config)));
  return options.json ? layout_json(config, ranks) : layout_text(config, ranks, true);
}

}  // namespace shoestring
