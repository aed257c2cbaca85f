#include "io/hugging_face/family.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/io/hugging_face/config_fixture.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(Family, IsFoundForEachModel) {
  for (const auto& [family, model] : small_models()) {
    EXPECT_EQ(family_of(model), family) << model_type_of(family);
  }
  // Llama's class wants a width that the heads divide; Mistral's computes the same.
  ModelConfig odd = small_models().at(ModelFamily::llama);
  odd.hidden = 34;
  EXPECT_EQ(family_of(odd), ModelFamily::mistral);
  ModelConfig dense = small_models().at(ModelFamily::deepseek_v3);
  dense.moe = {};
  EXPECT_EQ(family_of(dense), ModelFamily::deepseek_v3);
  // Nothing that is said of experts counts where no layer is sparse.
  dense.moe = {.experts = 1, .chosen = 1, .ffn = 8, .first_dense = 2, .every = 3};
  EXPECT_EQ(family_of(dense), ModelFamily::deepseek_v3);
  for (const ModelFamily family : {ModelFamily::deepseek_v2, ModelFamily::deepseek_v3}) {
    ModelConfig alone = small_models().at(family);
    alone.moe.shared = 0;
    EXPECT_EQ(family_of(alone), family) << "without shared experts";
  }
  ModelConfig qwen = small_models().at(ModelFamily::qwen3_moe);
  qwen.moe.every = 2;  // decoder_sparse_step, counted from one
  EXPECT_EQ(family_of(qwen), ModelFamily::qwen3_moe);
}

TEST(Family, RefusesModelsThatNobodyElseComputes) {
  auto refused = [](ModelFamily from, const std::string& key,
                    const std::function<void(ModelConfig&)>& change) {
    ModelConfig model = small_models().at(from);
    change(model);
    expect_error(ExitCode::usage, {"no Hugging Face family", key}, [&] { family_of(model); });
  };
  using F = ModelFamily;
  refused(F::llama, "residual_multiplier", [](auto& m) { m.residual_multiplier = 0.5; });
  refused(F::llama, "attention_scale", [](auto& m) { m.attention_scale = 0.1; });
  refused(F::llama, "model.mtp", [](auto& m) { m.mtp.depth = 1; });
  refused(F::qwen2, "qk_norm", [](auto& m) { m.qk_norm = true; });
  refused(F::mixtral, "model.moe.scores", [](auto& m) { m.moe.scores = "sigmoid"; });
  refused(F::mixtral, "bias_speed", [](auto& m) { m.moe.balance.bias_speed = 0.1; });
  refused(F::mixtral, "shared", [](auto& m) { m.moe.shared = 1; });
  refused(F::mixtral, "model.moe.first_dense", [](auto& m) { m.moe.first_dense = 1; });
  refused(F::mixtral, "every", [](auto& m) { m.moe.every = 2; });
  refused(F::mixtral, "renormalise", [](auto& m) { m.moe.renormalise = false; });
  refused(F::mixtral, "scaling", [](auto& m) { m.moe.scaling = 2; });
  refused(F::qwen3_moe, "shift", [](auto& m) { m.moe.every = 2, m.moe.shift = 0; });
  refused(F::deepseek_v2, "renormalise", [](auto& m) { m.moe.renormalise = true; });
  refused(F::deepseek_v2, "group_score", [](auto& m) { m.moe.group_score = "top2"; });
  refused(F::deepseek_v2, "mtp", [](auto& m) { m.mtp.depth = 1; });
  refused(F::deepseek_v3, "model.moe.every", [](auto& m) { m.layers = 4, m.moe.every = 2; });
  refused(F::deepseek_v2, "model.moe.every", [](auto& m) { m.layers = 4, m.moe.every = 3; });
  refused(F::deepseek_v3, "group_score", [](auto& m) { m.moe.group_score = "max"; });
  refused(F::deepseek_v3, "two experts or more",
          [](auto& m) { m.moe.experts = m.moe.chosen = m.moe.groups = m.moe.groups_chosen = 1; });
  refused(F::deepseek_v3, "window", [](auto& m) { m.window = 8; });
}

}  // namespace
}  // namespace shoestring
