#pragma once
// Layouts of small meshes that together use every axis, alone and with others.

#include <string>
#include <utility>
#include <vector>

#include "core/model/config.h"
#include "parallel/model_part.h"

namespace shoestring {

struct Layout {
  std::string name;
  PartConfig part;
  int ranks = 1;
};

inline Layout layout(std::string name, int ranks, const MeshConfig& mesh,
                     std::string schedule = "1f1b", ContextKind context = ContextKind::ring) {
  Layout l;
  l.name = std::move(name);
  l.ranks = ranks;
  l.part.mesh = mesh;
  l.part.schedule = std::move(schedule);
  l.part.context = context;
  return l;
}

inline MeshConfig mesh(int64_t tp, int64_t cp, int64_t pp, int64_t ep = 1) {
  MeshConfig m;
  m.tp = tp, m.cp = cp, m.pp = pp, m.ep = ep;
  return m;
}

// The layout with its data ranks in two levels.
inline Layout replicated(Layout l, int64_t times) {
  l.part.mesh.dp_replicate = times;
  return l;
}

inline ModelConfig deep(ModelConfig model) {
  model.layers = 4;
  return model;
}

inline std::vector<Layout> dense_layouts() {
  return {layout("dp 2", 2, mesh(1, 1, 1)),
          layout("dp 3", 3, mesh(1, 1, 1)),
          layout("tp 2", 2, mesh(2, 1, 1)),
          layout("tp 4", 4, mesh(4, 1, 1)),
          layout("ring 2", 2, mesh(1, 2, 1)),
          layout("ring 4", 4, mesh(1, 4, 1)),
          layout("all-to-all 2", 2, mesh(1, 2, 1), "1f1b", ContextKind::all_to_all),
          layout("pp 2", 2, mesh(1, 1, 2)),
          layout("pp 4", 4, mesh(1, 1, 4), "zb-h1"),
          layout("zb-v", 2, mesh(1, 1, 2), "zb-v"),
          layout("interleaved", 2, mesh(1, 1, 2), "interleaved-1f1b"),
          layout("dualpipe", 2, mesh(1, 1, 2), "dualpipe"),
          layout("dualpipe 4", 4, mesh(1, 1, 4), "dualpipe"),
          layout("dualpipev", 2, mesh(1, 1, 2), "dualpipev"),
          replicated(layout("dp 2 x 2", 4, mesh(1, 1, 1)), 2),
          replicated(layout("dualpipe dp 1 x 2", 4, mesh(1, 1, 2), "dualpipe"), 2),
          replicated(layout("cp 2 dp 1 x 2", 4, mesh(1, 2, 1)), 2),
          layout("tp 2 dp 2", 4, mesh(2, 1, 1)),
          layout("tp 2 cp 2", 4, mesh(2, 2, 1)),
          layout("tp 2 pp 2", 4, mesh(2, 1, 2)),
          layout("cp 2 pp 2", 4, mesh(1, 2, 2)),
          layout("dualpipe dp 2", 4, mesh(1, 1, 2), "dualpipe"),
          layout("tp 2 cp 2 pp 2", 8, mesh(2, 2, 2), "zb-v"),
          layout("tp 2 pp 2 dp 2", 8, mesh(2, 1, 2), "zb-h2")};
}

inline std::vector<Layout> sparse_layouts() {
  return {layout("dp 2", 2, mesh(1, 1, 1)),
          layout("ep 2", 2, mesh(1, 1, 1, 2)),
          layout("ep 2 dp 4", 4, mesh(1, 1, 1, 2)),
          replicated(layout("ep 2 dp 2 x 2", 4, mesh(1, 1, 1, 2)), 2),
          layout("ep 2 tp 2", 2, mesh(2, 1, 1, 2)),
          layout("tp 2", 2, mesh(2, 1, 1)),
          layout("cp 2", 2, mesh(1, 2, 1)),
          layout("cp 2 ep 2", 2, mesh(1, 2, 1, 2)),
          layout("tp 2 cp 2", 4, mesh(2, 2, 1)),
          layout("tp 2 dp 2 ep 2", 4, mesh(2, 1, 1, 2)),
          layout("pp 2 ep 2", 4, mesh(1, 1, 2, 2), "zb-h1"),
          layout("dualpipe ep 2", 4, mesh(1, 1, 2, 2), "dualpipe"),
          layout("dualpipe ep 2 dp 4", 8, mesh(1, 1, 2, 2), "dualpipe"),
          layout("tp 2 cp 2 pp 2 ep 2", 8, mesh(2, 2, 2, 2), "zb-v")};
}

}  // namespace shoestring
