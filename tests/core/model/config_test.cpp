#include "core/model/config.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(ModelConfig, ImpossibleHeadsAreComplaints) {
  ModelConfig m;
  m.heads = 3;
  m.kv_heads = 2;
  m.hidden = 64;
  Complaints c;
  m.validate(c);
  ASSERT_GE(c.items().size(), 2u);
  EXPECT_EQ(c.items()[0].key, "kv_heads");
  EXPECT_EQ(c.items()[1].key, "head_dim");
  Complaints none;
  ModelConfig().validate(none);
  EXPECT_TRUE(none.items().empty());
}

}  // namespace
}  // namespace shoestring
