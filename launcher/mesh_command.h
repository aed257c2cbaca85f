#pragma once
// `shoestring mesh`: where a run's ranks stand and who talks to whom, without training.

#include <optional>
#include <string>
#include <vector>

namespace shoestring {

struct MeshOptions {
  std::string config;
  std::vector<std::string> overrides = {};  // "section.key=value"
  std::optional<int> ranks = {};            // default: as many as the config asks for
  bool json = false;
};

// layout_text.h, every rank. Mistakes, and layouts that the model or the batches do not allow, are
// usage errors.
std::string mesh_text(const MeshOptions& options);

}  // namespace shoestring
