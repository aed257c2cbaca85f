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
    for (const int64_t stage : {0, 1}) {
      c.ranks = 2;
      c.zero_stage = stage;
      expect_parity(run_mesh(c), alone, 1e-5, cat(micros, " micro-batches, stage ", stage));
    }
    c.zero_stage = 0;
  }
}

// Exact sums over data ranks and experts on one group of ranks have the bits of one rank.
TEST(StepGradients, ExactModeHasTheBitsOfOneRank) {
  for (const ModelConfig& family : families()) {
    MeshCase c;
    c.model = family;
    c.micros = 6;
    c.exact = true;
    const MeshOutcome alone = run_mesh(c);
    for (const int ranks : {2, 3}) {
      c.ranks = ranks;
      const MeshOutcome many = run_mesh(c);
      for (const auto& [name, g] : alone.gradients) EXPECT_EQ(many.gradients.at(name), g) << name;
    }
  }
}

TEST(StepGradients, OwnedRangesCoverTheStore) {
  for (const int64_t stage : {0, 1}) {
    std::mutex mutex;
    int64_t owned = 0, elements = 0;
    const ModelConfig model = families().back();
    run_ranks(2, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream compute = Stream::immediate(device);
      const PartConfig config;
      ModelPart part(model, config, world, device);
      ParamStore store(device, part.parameters(), Dtype::f32);
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
