#include "parallel/mesh_step.h"

#include <atomic>

#include "tests/parallel/mesh_case.h"
#include "tests/parallel/mesh_layout_lists.h"

namespace shoestring {
namespace {

void expect_all(const ModelConfig& model, const std::vector<Layout>& layouts,
                const std::string& what) {
  MeshCase c;
  c.model = model;
  c.micros = 16;
  const MeshOutcome alone = run_mesh(c);
  EXPECT_GT(alone.loss, 0);
  for (const Layout& l : layouts) {
    c.part = l.part;
    c.ranks = l.ranks;
    expect_parity(run_mesh(c), alone, 1e-5, cat(what, ", ", l.name));
  }
}

TEST(MeshStep, DenseModels) {
  int number = 0;
  for (const ModelConfig& family : families()) {
    if (family.moe.on() || family.mla.on()) continue;
    expect_all(deep(family), dense_layouts(), cat("family ", number++));
  }
  EXPECT_GE(number, 2);
}

TEST(MeshStep, SparseAndLatentModels) {
  int number = 0;
  for (const ModelConfig& family : families()) {
    if (!family.moe.on()) continue;
    ModelConfig model = deep(family);
    model.moe.balance = {.sequence = 0.5, .switch_loss = 0.3, .z_loss = 0.1};
    expect_all(model, sparse_layouts(), cat("family ", number++));
  }
  EXPECT_EQ(number, 3);
}

TEST(MeshStep, LatentAttention) {
  for (const ModelConfig& family : families()) {
    if (family.moe.on() || !family.mla.on()) continue;
    expect_all(deep(family), dense_layouts(), "latent");
  }
}

// Passes in parts where experts' rows travel; each part is told of while it computes.
TEST(MeshStep, OverlapsInPartsWithTheSameBits) {
  MeshCase c;
  c.model = deep(families().back());
  c.micros = 16;
  c.ranks = 4;
  c.part.mesh.pp = 2, c.part.mesh.dp_shard = 2, c.part.mesh.ep = 2;
  for (const char* schedule : {"1f1b", "dualpipe"}) {
    c.part.schedule = schedule;
    c.part.overlap = false;
    std::atomic<int> parts = 0, open = 0;
    c.hooks = [&](ModelPart&, Stream&) {
      MeshStep::Hooks hooks;
      hooks.begins = [&](const Instruction& i, size_t) { parts += i.whole() ? 0 : 1, ++open; };
      hooks.ends = [&](const Instruction&, size_t) { --open; };
      return hooks;
    };
    const MeshOutcome whole = run_mesh(c);
    EXPECT_EQ(parts, 0);
    c.part.overlap = true;
    const MeshOutcome split = run_mesh(c);
    EXPECT_GT(parts, 100) << schedule;
    EXPECT_EQ(open, 0);
    EXPECT_EQ(split.loss, whole.loss) << schedule;
    EXPECT_EQ(split.gradients, whole.gradients) << schedule;
  }
}

// What passes in parts keep goes to the host as parts end, and is back for those of the backward
// pass; so do whole passes of the same step.
TEST(MeshStep, OverlapsWithActivationsOnTheHost) {
  MeshCase c;
  c.model = deep(families().back());
  c.micros = 16;
  c.ranks = 4;
  c.part.mesh.pp = 2, c.part.mesh.dp_shard = 2, c.part.mesh.ep = 2;
  c.part.overlap = true;
  for (const char* schedule : {"1f1b", "interleaved-1f1b", "dualpipe", "dualpipev"}) {
    for (const Recompute recompute : {Recompute::none, Recompute::attention, Recompute::block}) {
      for (const bool fixed : {false, true}) {
        SCOPED_TRACE(cat(schedule, ", recompute ", static_cast<int>(recompute), ", ", fixed));
        c.part.schedule = schedule;
        c.recompute = recompute;
        c.part.fixed_rows = fixed;
        c.model.moe.capacity = fixed ? 1.5 : 0;
        c.offload_activations = false;
        const MeshOutcome here = run_mesh(c);
        c.offload_activations = true;
        const MeshOutcome there = run_mesh(c);
        EXPECT_EQ(there.loss, here.loss);
        EXPECT_EQ(there.gradients, here.gradients);
        EXPECT_EQ(here.host_activations, 0);
        EXPECT_GT(there.host_activations, 0);
        // The first ranks hold stages that are not the last, several micro-batches of each. What
        // recompute leaves of blocks is less than what copies under way may hold.
        if (recompute == Recompute::block) continue;
        EXPECT_LT(there.activations.at(0), here.activations.at(0) * 7 / 8);
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
