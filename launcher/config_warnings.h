#pragma once
// What a config asks for and will not get: legal, and hardly meant.

#include <string>
#include <vector>

#include "launcher/config_fields.h"
#include "launcher/run_config.h"

namespace shoestring {

// A line each, for people: settings that other settings leave without effect, with the place where
// they were set ("a.toml:3:9: optim.muon.momentum = 0.9 has no effect: ..."), and ranks that would
// have nothing to compute. What has its default is never warned of, wherever it was set.
//
// Also a section that others leave without any effect (experts of which no layer has any), and
// model.kv_heads beside latent attention, whatever its default.
std::vector<std::string> config_warnings(const RunConfig& config, int64_t ranks,
                                         const KeyPositions& positions);

// Whether model.moe makes any layer sparse.
bool any_sparse_layer(const ModelConfig& model);

}  // namespace shoestring
