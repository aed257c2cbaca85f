#include "launcher/step_flop.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

// Two rows: documents of 3 and 5 tokens, and one of 8.
MicroBatch packed() {
  MicroBatch micro{.sequences = 2, .length = 8};
  micro.first_key = {0, 0, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0};
  return micro;
}

TEST(StepFlop, PairsStayInsideTheirDocument) {
  EXPECT_EQ(attended_pairs(packed(), 0), (1 + 2 + 3) + (1 + 2 + 3 + 4 + 5) + 36);
}

TEST(StepFlop, PairsStayInsideTheWindow) {
  EXPECT_EQ(attended_pairs(packed(), 2), (1 + 2 + 2) + (1 + 2 + 2 + 2 + 2) + (1 + 7 * 2));
  EXPECT_EQ(attended_pairs(packed(), 1), 16);
  EXPECT_EQ(attended_pairs(packed(), 100), attended_pairs(packed(), 0));
}

TEST(StepFlop, WholeRowsCountAsTheEstimateFromTheConfigDoes) {
  ModelConfig model;
  model.vocabulary = 1000;
  const int64_t length = 512;
  MicroBatch micro{.sequences = 3, .length = length};
  micro.first_key.assign(static_cast<size_t>(3 * length), 0);
  const int64_t tokens = 3 * length;
  const double estimate = static_cast<double>(tokens) * training_flop_per_token(model, length);
  const double counted =
      training_flop(model, tokens, static_cast<double>(attended_pairs(micro, 0)));
  // The estimate takes S / 2 keys a query, of which there are (S + 1) / 2.
  const double half_a_key =
      12.0 * static_cast<double>(model.layers * model.heads * model.dim_of_head() * tokens) / 2;
  EXPECT_DOUBLE_EQ(counted, estimate + half_a_key);
  EXPECT_LT(training_flop(model, tokens, 0), counted);
}

}  // namespace
}  // namespace shoestring
