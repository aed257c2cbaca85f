// A small DeepSeek-V3 - DualPipe, prediction module, experts over data ranks, FP8 - on 16 and 64
// ranks beside one rank.

#include "tests/conformance/step_case.h"

namespace shoestring {
namespace {

MeshCase deepseek_case(int64_t pp, int64_t ep, int64_t dp) {
  MeshCase c;
  c.model = step_model("deepseek-v3");
  c.model.layers = pp;
  c.model.moe.experts = 16;
  c.part.mesh.pp = pp;
  c.part.mesh.ep = ep;
  c.part.mesh.dp_shard = dp;
  c.part.schedule = "dualpipe";
  c.ranks = static_cast<int>(pp * dp);
  c.micros = static_cast<int>(2 * pp * dp);
  c.zero_stage = 1;
  return c;
}

void expect_parity_of(const MeshCase& c) {
  SCOPED_TRACE(text_of(c));
  ASSERT_TRUE(is_legal(question_of(c)));
  OneRank alone;
  expect_step_parity(c, alone);
}

TEST(ManyRanks, SixteenInF32) {
  for (const bool exact : {false, true}) {
    MeshCase c = deepseek_case(4, 4, 4);
    c.exact = exact;
    c.zero_stage = exact ? 1 : 3;
    expect_parity_of(c);
  }
}

TEST(ManyRanks, SixteenInFp8) {
  MeshCase c = deepseek_case(4, 2, 4);
  set_precision(c, Dtype::bf16, "deepseek_v3");
  c.recompute = Recompute::norms;
  expect_parity_of(c);
}

// Experts over two machines of eight neighbours each.
TEST(ManyRanks, SixtyFourInFp8) {
  MeshCase c = deepseek_case(4, 16, 16);
  set_precision(c, Dtype::bf16, "deepseek_v3");
  c.part.mesh.ranks_per_node = 8;
  expect_parity_of(c);
}

TEST(ManyRanks, SixtyFourInF32) {
  MeshCase c = deepseek_case(8, 8, 8);
  c.length = 8;
  expect_parity_of(c);
}

}  // namespace
}  // namespace shoestring
