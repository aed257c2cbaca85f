#include "launcher/block_memory.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

ModelConfig model() {
  ModelConfig m{.layers = 2, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2};
  m.vocabulary = 64;
  return m;
}

TEST(BlockMemory, OfADenseBlockByHand) {
  const BlockSizes b = sizes_of_block(model(), 0, {});
  // Sum and norm twice; q, k, v and o; gate, up and product.
  EXPECT_EQ(b.attention() + b.mlp(), 2 * 64 + (32 + 16 + 16 + 32) + 3 * 48);
  EXPECT_EQ(kept_under(Recompute::none, b).both(), b.attention() + b.mlp());
  EXPECT_EQ(kept_under(Recompute::swiglu, b).both(), b.attention() + b.mlp() - 48);
  EXPECT_EQ(kept_under(Recompute::norms, b).both(), b.attention() + b.mlp() - 48 - 64);
  EXPECT_EQ(kept_under(Recompute::block, b).both(), 32);
}

// Values a row, of which a rank of t has a t-th: what products read is there of all rows.
TEST(BlockMemory, TensorRanksGatherWhatProductsRead) {
  const ModelConfig m = model();
  const BlockSizes one = sizes_of_block(m, 0, {}), two = sizes_of_block(m, 0, {.tensor = 2});
  EXPECT_EQ(two.attention(), one.attention() + 32);
  EXPECT_EQ(two.mlp(), one.mlp() + 32);
  // Two key heads on four ranks: each is there twice.
  EXPECT_EQ(sizes_of_block(m, 0, {.tensor = 4}).k, 2 * one.k);
  ModelConfig latent = m;
  latent.mla = {.kv_latent = 12, .q_latent = 20, .nope_dim = 8, .rope_dim = 4, .v_dim = 8};
  const BlockSizes l1 = sizes_of_block(latent, 0, {}),
                   l2 = sizes_of_block(latent, 0, {.tensor = 2});
  EXPECT_EQ(l2.attention(), l1.attention() + 32);  // the normalised latents
  EXPECT_EQ(l2.mlp(), l1.mlp() + 32);
}

TEST(BlockMemory, HeadsThatTravelAreThereTwice) {
  const BlockSizes one = sizes_of_block(model(), 0, {}),
                   four = sizes_of_block(model(), 0, {.heads = 4});
  EXPECT_EQ(four.k, 2 * one.k);  // four ranks read two heads
  EXPECT_EQ(four.core(), one.core() + one.k + one.v + one.o);
}

TEST(BlockMemory, ExpertsReadTheRowsOfTheirTokens) {
  ModelConfig m = model();
  m.moe = {.experts = 8, .chosen = 3, .ffn = 16, .shared = 1, .first_dense = 1};
  EXPECT_EQ(sizes_of_block(m, 0, {}).chosen, 0);
  const BlockSizes b = sizes_of_block(m, 1, {});
  EXPECT_EQ(b.mlp(), 64 + 3 * (3 * 16 + 16) + 2 * 3 * 32);
  EXPECT_EQ(b.statistics(), 2 + 4 + 8 + 9);
  // Only the shared expert gathers.
  EXPECT_EQ(sizes_of_block(m, 1, {.tensor = 2}).mlp(), b.mlp() + 64);
  EXPECT_EQ(sizes_of_block(m, 2, {}).chosen, 3);  // of a prediction module
  // Experts read and keep padding as well; one row a choice comes home.
  const BlockSizes fixed = sizes_of_block(m, 1, {.fixed_rows = 5});
  EXPECT_EQ(fixed.mlp(), 64 + 3 * (5 * 16 + 16) + (3 + 5) * 32);
  EXPECT_EQ(fixed.owed(), b.owed() + 2 * (2 * 32 + 3 * 16));
  EXPECT_EQ(fixed.statistics(), b.statistics());
  // Sums in two nodes: a relay keeps what it sums, home a row a node.
  EXPECT_EQ(sizes_of_block(m, 1, {.summing_nodes = 2}).mlp(), b.mlp() + 2 * 32);
  EXPECT_EQ(sizes_of_block(m, 1, {.summing_nodes = 4}).mlp(), b.mlp() + 3 * 32);
  EXPECT_EQ(sizes_of_block(m, 1, {.fixed_rows = 5, .summing_nodes = 2}).mlp(),
            fixed.mlp() + (5 + 2 - 3) * 32);
  EXPECT_EQ(sizes_of_block(m, 1, {.fixed_rows = 5, .summing_nodes = 8}).mlp(),
            fixed.mlp() + (5 + 5 - 3) * 32);
}

}  // namespace
}  // namespace shoestring
