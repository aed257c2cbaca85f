#include "launcher/rank_share.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/text.h"
#include "launcher/mesh_layout.h"
#include "parallel/comm/in_process.h"
#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

std::vector<std::string> text_of(const std::vector<ParamInfo>& params) {
  std::vector<std::string> list;
  for (const ParamInfo& p : params) {
    list.push_back(cat(p.name, " ", p.shape.text(), " ", p.parts.size()));
  }
  std::sort(list.begin(), list.end());
  return list;
}

// What a forecast takes a rank to have is what the rank makes of the same config.
TEST(RankShare, IsThePartThatARankHolds) {
  const ScratchFolder folder;
  const std::vector<std::pair<const char*, int>> layouts = {
      {"1f1b", 1}, {"1f1b", 2}, {"zb-v", 2}, {"dualpipe", 2}};
  for (const auto& [schedule, tp] : layouts) {
    RunConfig config = parity_config(folder);
    config.model.vocabulary = 203;
    config.mesh.tp = tp, config.mesh.pp = 2, config.mesh.ep = 2;
    config.mesh.dp_shard = 2;
    config.pipeline.schedule = schedule;
    const int ranks = 4 * tp;
    run_ranks(ranks, [&, name = schedule, tp = tp](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      const ModelPart part(config.model, part_config_of(config, ranks), world, device);
      const RankShare share = share_of(config, ranks, world.rank(), 4);
      std::vector<ParamInfo> all;
      for (const RankShare::Group& group : share.groups) {
        all.insert(all.end(), group.params.begin(), group.params.end());
      }
      const std::string what = cat(name, " rank ", world.rank());
      EXPECT_EQ(text_of(all), text_of(part.parameters())) << what;
      const bool mirrored = name == std::string("dualpipe");
      for (const RankShare::Group& group : share.groups) {
        EXPECT_EQ(group.ranks(), (group.routed ? tp : 2) * (mirrored ? 2 : 1)) << what;
        EXPECT_LT(group.shard, group.shards) << what;
      }
      const auto forward = std::count_if(share.program.begin(), share.program.end(),
                                         [](const Instruction& i) { return i.what == Do::F; });
      EXPECT_EQ(forward, name == std::string("zb-v") ? 8 : 4) << what;
    });
  }
}

}  // namespace
}  // namespace shoestring
