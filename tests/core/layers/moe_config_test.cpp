#include "core/layers/moe_config.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

std::vector<std::string> keys_of(const MoeConfig& config) {
  Complaints c;
  config.validate(c);
  std::vector<std::string> keys;
  for (const auto& item : c.items()) keys.push_back(item.key);
  return keys;
}
using Keys = std::vector<std::string>;

TEST(MoeConfig, ContradictionsNameTheirKeys) {
  EXPECT_EQ(keys_of({}), Keys());
  EXPECT_EQ(keys_of({.experts = 8, .chosen = 2, .ffn = 16}), Keys());
  EXPECT_EQ(keys_of({.experts = 8, .chosen = 9, .ffn = 0}),
            (Keys{"ffn", "chosen", "groups_chosen"}));
  EXPECT_EQ(keys_of({.experts = 8, .ffn = 16, .groups = 3}), Keys{"groups"});
  EXPECT_EQ(keys_of({.experts = 8, .ffn = 16, .groups = 2, .groups_chosen = 3}),
            Keys{"groups_chosen"});
  EXPECT_EQ(keys_of({.experts = 8, .chosen = 3, .ffn = 16, .groups = 4, .groups_chosen = 1}),
            Keys{"groups_chosen"});
  EXPECT_EQ(keys_of({.experts = 4, .chosen = 1, .ffn = 16, .groups = 4}), Keys{"group_score"});
  MoeConfig centred{.experts = 4, .ffn = 16};
  centred.balance.bias_centred = true;
  EXPECT_EQ(keys_of(centred), Keys{"balance.bias_centred"});
}

TEST(MoeConfig, SparseLayersFollowTheStartAndTheFrequency) {
  const MoeConfig deepseek{.experts = 4, .first_dense = 2};
  EXPECT_FALSE(deepseek.sparse(1));
  EXPECT_TRUE(deepseek.sparse(2));
  const MoeConfig every_other{.experts = 4, .every = 2, .shift = 1};
  EXPECT_FALSE(every_other.sparse(0));
  EXPECT_TRUE(every_other.sparse(1));
  EXPECT_FALSE(MoeConfig().sparse(5));
}

}  // namespace
}  // namespace shoestring
