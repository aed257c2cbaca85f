#include "launcher/layout_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/counted.h"
#include "core/text.h"
#include "launcher/mesh_layout.h"
#include "launcher/plan.h"
#include "parallel/mesh.h"
#include "parallel/model_part.h"
#include "parallel/model_stages.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

// Refuses as training does, before a mesh is made.
PartConfig legal_part(const RunConfig& config, int ranks) {
  require_layout(config, ranks, load_segments(config));
  return part_config_of(config, ranks);
}

struct Layout {
  Layout(const RunConfig& config, int ranks)
      : part(legal_part(config, ranks)), mesh(part.mesh, ranks) {
    micro_batches = load_segments(config)[0].micro_batches;
    const int64_t data_ranks = mesh.config().dp();
    of_data_rank = (micro_batches + data_ranks - 1) / data_ranks;
    idle = std::max<int64_t>(data_ranks - micro_batches, 0);
    where = placement_of(part);
    if (split_is_open(config)) return;
    blocks = part.blocks.empty() ? even_split(config.model, where.stages()) : part.blocks;
  }
  // Of the pipeline, those that hold a stage.
  std::vector<int> holders(int stage) const {
    std::vector<int> ranks;
    for (int rank = 0; rank < where.ranks; ++rank) {
      const std::vector<int> held = stages_of(where, rank);
      if (std::find(held.begin(), held.end(), stage) != held.end()) ranks.push_back(rank);
    }
    return ranks;
  }

  PartConfig part;
  Mesh mesh;
  Placement where;
  std::vector<int64_t> blocks;  // of each stage; empty: measured when the run starts
  int64_t micro_batches = 0, of_data_rank = 0;
  int64_t idle = 0;  // data ranks without a micro-batch
};

std::string stage_rows(const Layout& layout) {
  std::string text;
  for (int rank = 0; rank < layout.where.ranks; ++rank) {
    append(text, "  pp ", rank, ":");
    for (int stage : stages_of(layout.where, rank)) {
      append(text, stage == stages_of(layout.where, rank).front() ? " " : ", ", "stage ", stage);
      if (layout.blocks.empty()) continue;
      append(text, " (", counted(layout.blocks[static_cast<size_t>(stage)], "block"), ")");
    }
    append(text, "\n");
  }
  return text;
}

std::string text_of_zero(const RunConfig& config, const Layout& layout) {
  const int64_t stage = config.parallel.zero_stage;
  if (stage > 0 && !has_use_for_zero(config, layout.mesh.config().dp())) {
    return "no effect, because no two ranks hold the same part of the model";
  }
  constexpr const char* texts[] = {
      "every data rank holds all optimiser state, gradients and weights",
      "data ranks share out masters and optimiser state",
      "data ranks share out masters, optimiser state and gradients",
      "data ranks share out masters, optimiser state, gradients and weights"};
  return texts[stage];
}

// Groups that the schedule or the model sends nothing in.
std::vector<MeshGroup> unused_groups(const RunConfig& config, const Layout& layout) {
  std::vector<MeshGroup> unused;
  if (layout.where.order != StageOrder::both_ways) unused.push_back(MeshGroup::mirror);
  if (!config.model.moe.on()) {
    unused.insert(unused.end(), {MeshGroup::edp, MeshGroup::edp_shard, MeshGroup::edp_replicate});
  }
  return unused;
}

}  // namespace

std::string layout_text(const RunConfig& config, int ranks, bool every_rank) {
  const Layout layout(config, ranks);
  const std::vector<MeshGroup> unused = unused_groups(config, layout);
  std::string text = every_rank ? layout.mesh.text(unused) : layout.mesh.folded_text(unused);
  append(text, "\n");
  if (layout.where.ranks > 1) {
    append(text, "schedule ", layout.part.schedule,
           layout.blocks.empty() ? ", blocks split by measured cost when the run starts" : "",
           ":\n", stage_rows(layout));
  }
  append(text, counted(layout.micro_batches, "micro-batch", "micro-batches"), " a step");
  if (layout.mesh.config().dp() > 1) append(text, ", ", layout.of_data_rank, " a data rank");
  if (layout.idle > 0) {
    append(text, " but ", layout.idle, ", which ", layout.idle == 1 ? "has" : "have", " none");
  }
  append(text, "\nZeRO stage ", config.parallel.zero_stage, ": ", text_of_zero(config, layout),
         "\n");
  return text;
}

std::string layout_json(const RunConfig& config, int ranks) {
  const Layout layout(config, ranks);
  const Mesh& mesh = layout.mesh;
  Json json = {{"ranks", ranks}, {"nodes", mesh.nodes()}};
  for (size_t a = 0; a < mesh_axes; ++a) {
    const auto axis = static_cast<MeshAxis>(a);
    json["axes"][std::string(name_of(axis))] = mesh.extent(axis);
  }
  json["groups"] = Json::array();
  for (const MeshGroup group : all_mesh_groups()) {
    json["groups"].push_back({{"name", name_of(group)},
                              {"ranks", mesh.size(group)},
                              {"nodes", mesh.node_shape(group).nodes}});
  }
  json["schedule"] = layout.where.ranks > 1 ? Json(layout.part.schedule) : Json();
  json["stages"] = Json::array();
  for (int stage = 0; stage < layout.where.stages(); ++stage) {
    const Json blocks =
        layout.blocks.empty() ? Json() : Json(layout.blocks[static_cast<size_t>(stage)]);
    json["stages"].push_back({{"blocks", blocks}, {"pp", layout.holders(stage)}});
  }
  json["micro_batches"] = layout.micro_batches;
  json["micro_batches_of_data_rank"] = layout.of_data_rank;
  json["zero_stage"] = config.parallel.zero_stage;
  json["places"] = Json::array();
  for (int rank = 0; rank < ranks; ++rank) {
    Json place = {{"rank", rank}, {"node", mesh.node(rank)}};
    for (size_t a = 0; a < mesh_axes; ++a) {
      const auto axis = static_cast<MeshAxis>(a);
      place[std::string(name_of(axis))] = mesh.place(rank)[axis];
    }
    json["places"].push_back(std::move(place));
  }
  return json.dump(1) + "\n";
}

}  // namespace shoestring
