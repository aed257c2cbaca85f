#include "launcher/parameter_text.h"

#include <gtest/gtest.h>

#include "core/model/parameters.h"
#include "core/text.h"
#include "launcher/progress.h"

namespace shoestring {
namespace {

TEST(ParameterText, SaysWhatPredictionModulesAddTo) {
  ModelConfig model{.layers = 2,
                    .hidden = 32,
                    .ffn = 64,
                    .heads = 4,
                    .kv_heads = 4,
                    .vocabulary = 100,
                    .max_positions = 64};
  const ParamCounts plain = count_parameters(model);
  EXPECT_EQ(text_of_parameters(model),
            cat(text_of_count(static_cast<double>(plain.total)), " parameters"));
  model.mtp.depth = 2;
  const ParamCounts counts = count_parameters(model);
  ASSERT_GT(counts.prediction, 0);
  EXPECT_EQ(text_of_parameters(model),
            cat(text_of_count(static_cast<double>(plain.total + counts.prediction)),
                " parameters, ", text_of_count(static_cast<double>(counts.prediction)),
                " of them in 2 prediction modules"));
}

}  // namespace
}  // namespace shoestring
