#include "launcher/stage_memory.h"

#include <gtest/gtest.h>

#include "core/text.h"

namespace shoestring {
namespace {

RunConfig config() {
  RunConfig c;
  c.model = {.layers = 4, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2};
  c.model.vocabulary = 64;
  c.train.dtype = "f32";
  return c;
}

ForecastInput input() { return {.sequences = 2, .length = 64}; }

int64_t most(const std::vector<PassMoment>& moments) {
  int64_t bytes = 0;
  for (const PassMoment& m : moments) bytes = std::max(bytes, m.total());
  return bytes;
}

// Two halves keep what the whole does, and the value that travels between them.
TEST(StageMemory, OfStagesIsThatOfTheModel) {
  for (const char* policy : {"none", "norms", "attention"}) {
    RunConfig c = config();
    c.train.recompute = policy;
    const auto of = [&](const Chunk& chunk) { return stage_memory(c, input(), chunk, {}); };
    const StageMemory whole = of({.first_block = 0, .last_block = 4});
    const StageMemory low = of({.first_block = 0, .last_block = 2, .head = false});
    const StageMemory high = of({.first_block = 2, .last_block = 4, .embedding = false});
    const int64_t value = 128 * 32 * 4;
    EXPECT_EQ(low.kept + high.kept, whole.kept + value) << policy;
    EXPECT_EQ(low.owed + high.owed, whole.owed) << policy;
    EXPECT_GT(most(low.backward), low.kept - value) << policy;
    EXPECT_GE(most(low.input), most(low.backward)) << policy;
  }
}

// Between the gradient of the input and that of the weights a stage keeps less than before both.
TEST(StageMemory, OwesLessThanItKept) {
  const StageMemory stage =
      stage_memory(config(), input(), {.first_block = 0, .last_block = 4, .head = false}, {});
  EXPECT_LT(stage.owed, stage.kept);
  EXPECT_GT(stage.owed, stage.kept / 2);
}

TEST(StageMemory, StagingByHand) {
  ForecastInput in = input();
  const int64_t rows = 128, d = 32;
  in.share.tensor = 2;
  // What travels at once: the other's part of a sum. In runs also the rows of both ranks, in two
  // places where there are two runs.
  RunConfig c = config();
  c.parallel.tensor_chunks = 0;
  EXPECT_EQ(row_communication(c, in), rows / 2 * d * 4);
  c.parallel.tensor_chunks = 1;
  EXPECT_EQ(row_communication(c, in), rows / 2 * d * 4 * (2 + 1));
  c.parallel.tensor_chunks = 4;
  EXPECT_EQ(row_communication(c, in), rows / 8 * d * 4 * (2 * 2 + 1));
  c.parallel.tensor_chunks = 64;  // the embedding's parts travel at once
  EXPECT_EQ(row_communication(c, in), rows / 2 * d * 4);
  in.share.tensor = 1;
  in.share.context = 4;
  // Two pairs of keys and values on their way, three of sums, of 32 columns together.
  EXPECT_EQ(row_communication(config(), in), rows / 4 * 32 * 4 * 5);
  in.share.context_kind = ContextKind::all_to_all;
  // Packed and as it arrived: q, and each key head twice for the ranks that read it.
  EXPECT_EQ(row_communication(config(), in), rows / 4 * 2 * (32 + 64) * 4);
  in.share = {};
  EXPECT_EQ(row_communication(config(), in), 0);
}

// 128 tokens with 3 choices each of 8 experts, 32 of them here.
TEST(StageMemory, FixedRowsAreThereWithTheirPadding) {
  RunConfig c = config();
  c.model.moe = {.experts = 8, .chosen = 3, .ffn = 16};
  ForecastInput in = input();
  in.share.context = 4;
  in.share.experts = 2;
  EXPECT_EQ(row_communication(c, in), 20480) << "of the ring alone: no experts on this rank";
  in.share.groups.push_back({.params = {ParamInfo()}, .routed = true});
  const int64_t row = 32 * 4;
  const Chunk all{.first_block = 0, .last_block = 4};
  const int64_t kept = stage_memory(c, in, all, {}).kept;
  EXPECT_EQ(row_communication(c, in), 2 * 32 * 3 * row);
  c.parallel.expert_rows = "fixed";
  c.model.moe.capacity = 0.25;  // 12 rows of the 384 choices, all of which may be from here
  EXPECT_EQ(row_communication(c, in), 2 * 8 * 12 * row);
  EXPECT_EQ(stage_memory(c, in, all, {}).kept, kept);
  c.model.moe.capacity = 1;  // 48, but there are 32 tokens
  EXPECT_EQ(row_communication(c, in), 2 * 8 * 32 * row);
  const int64_t more = (8 - 3) * 32 * (32 + 3 * 16) * 4;  // of rows, gate, up and product
  EXPECT_EQ(stage_memory(c, in, all, {}).kept, kept + 4 * more);
}

}  // namespace
}  // namespace shoestring
