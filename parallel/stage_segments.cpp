#include "parallel/stage_segments.h"

namespace shoestring {

std::vector<StageSegments> segments_of(const ModelConfig& model, const std::vector<Chunk>& chunks,
                                       bool predictions) {
  using enum SegmentKind;
  std::vector<StageSegments> all;
  for (const Chunk& chunk : chunks) {
    StageSegments& s = all.emplace_back();
    const auto add_block = [&](bool sparse) {
      s.push_back(attention);
      if (sparse) s.insert(s.end(), {dispatch, experts, combine});
      if (!sparse || model.moe.shared > 0) s.push_back(mlp);
    };
    if (chunk.embedding) s.push_back(edge);
    for (int64_t i = chunk.first_block; i < chunk.last_block; ++i) add_block(model.moe.sparse(i));
    if (!chunk.head) continue;
    s.push_back(edge);
    for (int64_t k = 0; predictions && k < model.mtp.depth; ++k) {
      s.push_back(edge);
      add_block(model.moe.sparse(model.layers - 1));
      s.push_back(edge);
    }
  }
  return all;
}

}  // namespace shoestring
