// Experts whose inner width is cut over ranks (parallel/expert_exchange.h).
#include "tests/parallel/expert_one_rank.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

const Standing sliced[] = {{.ranks = 1, .slices = 2},
                           {.ranks = 1, .slices = 5},
                           {.ranks = 2, .slices = 2},
                           {.ranks = 4, .slices = 2},
                           {.ranks = 4, .nodes = 2, .slices = 2},
                           {.ranks = 2, .nodes = 2, .slices = 5},
                           {.ranks = 4, .nodes = 2, .sum_in_nodes = true, .slices = 2}};

// Parts of outputs and of the rows' gradients are summed: equal to rounding, whoever has tokens.
TEST(ExpertSlices, AddUpToOneRank) {
  for (const Standing& s : sliced) {
    expect_one_rank({.dtype = Dtype::f64}, s, 1e-13);
    expect_one_rank({.dtype = Dtype::f32}, s, 1e-6);
    expect_one_rank({.dtype = Dtype::bf16}, s, 2e-2);
    Model uneven{.dtype = Dtype::f64};
    uneven.bias = [](int r, int64_t e) { return (e + r) % 2 == 0 ? 5.0 : 0.0; };
    expect_one_rank(uneven, s, 1e-13);
    uneven.bias = [](int, int64_t e) { return -10.0 * static_cast<double>(e); };
    expect_one_rank(uneven, s, 1e-13);
  }
}

TEST(ExpertSlices, DropWhatOneRankDrops) {
  for (Standing s : {Standing{.ranks = 1, .slices = 2}, Standing{.ranks = 4, .slices = 2},
                     Standing{.ranks = 2, .nodes = 2, .slices = 5}}) {
    for (double capacity : {0.5, 3.0}) {
      const Model model{.dtype = Dtype::f64, .capacity = capacity};
      expect_one_rank(model, s, 1e-13);
      if (s.nodes > 0) continue;
      const double even =
          static_cast<double>(model.tokens() * model.chosen) / static_cast<double>(model.experts);
      Standing fixed = s;
      fixed.fixed_rows = static_cast<int64_t>(std::ceil(capacity * even)) + 2;
      expect_one_rank(model, fixed, 1e-13);
    }
  }
}

TEST(ExpertSlices, OtherOrdersOfWorkChangeNothing) {
  const Standing s{.ranks = 2, .slices = 2};
  for (int i = 0; i < 4; ++i) {
    Model model{.dtype = Dtype::f64};
    model.worker = i == 0, model.apart = i == 1, model.region = i == 2;
    if (i == 3) model.recompute = Recompute::swiglu;
    expect_one_rank(model, s, 1e-13);
  }
}

// Tiles of 128 columns are those of the whole where slices end at a tile. Elsewhere, and with one
// scale for all, codes are others: what two roundings to two bits (E5M2) differ by.
TEST(ExpertSlices, InFp8) {
  for (const Standing& s :
       {Standing{.ranks = 2, .slices = 2}, Standing{.ranks = 2, .fixed_rows = 60, .slices = 2},
        Standing{.ranks = 4, .nodes = 2, .slices = 2}}) {
    for (const char* recipe : {"deepseek_v3", "per_tensor", "mxfp8"}) {
      Model model{.d = 136, .m = 256, .length = 7, .dtype = Dtype::bf16, .recipe = recipe};
      model.capacity = s.fixed_rows > 0 ? 2 : 0;
      expect_one_rank(model, s, model.recipe == "per_tensor" ? 0.15 : 1e-2);
      model.m = 40;
      expect_one_rank(model, s, 0.15);
      model.probe = true;
      expect_one_rank(model, s, 0.15);
    }
  }
}

// Slice 1 of 2 of experts 4 and 5: rows 5..9 of gate and of up, and columns 5..9 of down.
TEST(ExpertSlices, AreColumnsOfAnExpert) {
  const ExpertPart part{.rank = 2, .ranks = 4, .slice = 1, .slices = 2};
  const ParamInfo gate_up = part_of_experts({.name = "layers.3.moe.experts.gate_up.weight",
                                             .shape = {8 * 20, 12},
                                             .parts = std::vector<int64_t>(16, 10)},
                                            8, part);
  EXPECT_EQ(gate_up.shape, (Shape{20, 12}));
  EXPECT_EQ(gate_up.shard.whole, (Shape{160, 12}));
  EXPECT_EQ(gate_up.parts, std::vector<int64_t>(4, 5));
  ASSERT_EQ(gate_up.shard.rows.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(gate_up.shard.rows[i].local, static_cast<int64_t>(5 * i));
    EXPECT_EQ(gate_up.shard.rows[i].global, static_cast<int64_t>(80 + 10 * i + 5));
    EXPECT_EQ(gate_up.shard.rows[i].count, 5);
  }
  const ParamInfo down = part_of_experts({.name = "layers.3.moe.experts.down.weight",
                                          .shape = {8 * 12, 10},
                                          .parts = std::vector<int64_t>(8, 12)},
                                         8, part);
  EXPECT_EQ(down.shape, (Shape{24, 5}));
  EXPECT_EQ(down.parts, std::vector<int64_t>(2, 12));
  EXPECT_EQ(down.shard.first_column, 5);
  ASSERT_EQ(down.shard.rows.size(), 1u);
  EXPECT_EQ(down.shard.rows[0].global, 48);
}

}  // namespace
}  // namespace shoestring
