#include "parallel/step_gradients.h"

#include "tests/parallel/mesh_case.h"

namespace shoestring {
namespace {

// The same sums whether state is shared out or not, and whether micro-batches are even or not.
TEST(StepGradients, SharesAndUnevenMicroBatchesChangeNothing) {
  MeshCase c;
  c.model = families().back();
  for (const int micros : {1, 2, 3, 5}) {
    c.micros = micros;
    c.ranks = 1;
    c.part = PartConfig();
    const MeshOutcome alone = run_mesh(c);
    for (const int64_t stage : {0, 1, 2}) {
      c.ranks = 2;
      c.zero_stage = stage;
      expect_parity(run_mesh(c), alone, 1e-5, cat(micros, " micro-batches, stage ", stage));
    }
    c.zero_stage = 0;
  }
}

struct ExactLayout {
  int ranks;
  int64_t pp = 1, ep = 1, dp_replicate = 1;
  const char* schedule = "1f1b";
  int64_t zero_stage = 0;
};

void expect_bits_of_one_rank(MeshCase c, const std::vector<ExactLayout>& layouts,
                             const std::string& what) {
  c.exact = true;
  c.ranks = 1;
  c.part = PartConfig();
  const MeshOutcome alone = run_mesh(c);
  for (const ExactLayout& l : layouts) {
    c.ranks = l.ranks;
    c.zero_stage = l.zero_stage;
    c.part = PartConfig();
    c.part.mesh.pp = l.pp, c.part.mesh.ep = l.ep, c.part.mesh.dp_replicate = l.dp_replicate;
    c.part.schedule = l.schedule;
    const MeshOutcome many = run_mesh(c);
    ASSERT_EQ(many.gradients.size(), alone.gradients.size());
    for (const auto& [name, g] : alone.gradients) {
      EXPECT_EQ(many.gradients.at(name), g)
          << name << " of " << what << " on " << l.ranks << " ranks, pp " << l.pp << " ("
          << l.schedule << "), ep " << l.ep;
    }
  }
}

// Exact sums over data ranks have the bits of one rank, in one level or two.
TEST(StepGradients, ExactModeHasTheBitsOfOneRank) {
  int number = 0;
  for (const ModelConfig& family : families()) {
    MeshCase c;
    c.model = family;
    c.micros = 6;
    expect_bits_of_one_rank(c,
                            {{.ranks = 2},
                             {.ranks = 3},
                             {.ranks = 4, .dp_replicate = 2},
                             {.ranks = 4, .dp_replicate = 2, .zero_stage = 1},
                             {.ranks = 2, .zero_stage = 2},
                             {.ranks = 2, .zero_stage = 3},
                             {.ranks = 6, .dp_replicate = 2, .zero_stage = 3}},
                            cat("family ", number++));
  }
}

// So do pipelines, alone and with data ranks: embeddings that the first and the last stage use
// among them, on two ranks, on one, and on two for one direction each.
TEST(StepGradients, ExactPipelinesHaveTheBitsOfOneRank) {
  int number = 0;
  for (const ModelConfig& family : families()) {
    MeshCase c;
    c.model = family;
    c.model.layers = std::max<int64_t>(family.layers, 4);
    c.micros = 16;
    std::vector<ExactLayout> layouts;
    for (const char* schedule : {"1f1b", "zb-h1", "interleaved-1f1b", "zb-v", "dualpipe"}) {
      layouts.push_back({.ranks = 2, .pp = 2, .schedule = schedule});
      for (const int64_t stage : {1, 2, 3}) {
        layouts.push_back({.ranks = 4, .pp = 2, .schedule = schedule, .zero_stage = stage});
      }
    }
    layouts.push_back({.ranks = 8, .pp = 2, .dp_replicate = 2, .schedule = "dualpipe"});
    expect_bits_of_one_rank(c, layouts, cat("family ", number++));
  }
}

// And experts, on one group of ranks or several, whose rows come from several micro-batches.
TEST(StepGradients, ExactExpertsHaveTheBitsOfOneRank) {
  int number = 0;
  for (const ModelConfig& family : families()) {
    ++number;
    if (!family.moe.on()) continue;
    MeshCase c;
    c.model = family;
    c.model.layers = std::max<int64_t>(family.layers, 4);
    for (const int micros : {6, 16}) {
      c.micros = micros;
      std::vector<ExactLayout> layouts = {{.ranks = 2, .ep = 2}};
      if (micros == 6) {
        layouts.push_back({.ranks = 6, .ep = 2});
        if (family.moe.experts % 3 == 0) {
          layouts.push_back({.ranks = 3, .ep = 3});
          layouts.push_back({.ranks = 6, .ep = 3, .dp_replicate = 2});
        }
      } else {
        layouts.push_back({.ranks = 4, .ep = 2});
        for (const int64_t stage : {1, 2, 3}) {
          layouts.push_back({.ranks = 4, .ep = 2, .zero_stage = stage});
        }
        layouts.push_back({.ranks = 8, .ep = 2, .dp_replicate = 2});
        layouts.push_back({.ranks = 4, .pp = 2, .ep = 2, .schedule = "zb-v"});
        layouts.push_back({.ranks = 8, .pp = 2, .ep = 2});
        layouts.push_back({.ranks = 8, .pp = 2, .ep = 2, .schedule = "dualpipe"});
      }
      for (const char* precision : {"f32", "bf16", "deepseek_v3"}) {
        c.dtype = std::string(precision) == "f32" ? Dtype::f32 : Dtype::bf16;
        c.precision = std::string(precision) == "f32" ? "bf16" : precision;
        expect_bits_of_one_rank(c, layouts, cat("family ", number, ", ", micros, ", ", precision));
      }
    }
  }
}

TEST(StepGradients, OwnedRangesCoverTheStore) {
  for (const int64_t stage : {0, 1, 2, 3}) {
    std::mutex mutex;
    int64_t owned = 0, elements = 0;
    const ModelConfig model = families().back();
    run_ranks(2, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream compute = Stream::immediate(device);
      const PartConfig config;
      ModelPart part(model, config, world, device);
      ParamStore store(device, part.parameters(), Dtype::f32,
                       memory_of_stage(stage, Dtype::f32, false));
      const StepGradients gradients(
          part, store, compute,
          {.sharing = {.bucket_bytes = 4096, .zero_stage = stage}, .whole = {}});
      const std::lock_guard lock(mutex);
      elements = store.elements();
      int64_t end = 0;
      for (const FlatRange r : gradients.owned_ranges()) {
        EXPECT_GE(r.begin, end);
        end = r.end;
        owned += r.elements();
      }
      EXPECT_EQ(gradients.owned_by_group().size(), 2u);
    });
    EXPECT_EQ(owned, stage == 0 ? 2 * elements : elements);
  }
}

}  // namespace
}  // namespace shoestring
