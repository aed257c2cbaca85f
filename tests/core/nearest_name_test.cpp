#include "core/nearest_name.h"

#include <gtest/gtest.h>

#include <vector>

namespace shoestring {
namespace {

TEST(NearestName, DistanceCountsEditsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("", "ab"), 2);
  EXPECT_EQ(edit_distance("steps", "steps"), 0);
  EXPECT_EQ(edit_distance("stpes", "steps"), 1);   // a swap is one edit
  EXPECT_EQ(edit_distance("step", "steps"), 1);    // insertion
  EXPECT_EQ(edit_distance("stepss", "steps"), 1);  // deletion
  EXPECT_EQ(edit_distance("stops", "steps"), 1);   // replacement
  EXPECT_EQ(edit_distance("STEPS", "steps"), 0);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(NearestName, PicksTheNearest) {
  std::vector<std::string> known = {"directory", "seed", "steps", "stage"};
  EXPECT_EQ(nearest_name("stpes", known), "steps");
  EXPECT_EQ(nearest_name("sed", known), "seed");
  EXPECT_EQ(nearest_name("directry", known), "directory");
}

TEST(NearestName, SaysNothingWhenNoneIsNear) {
  std::vector<std::string> known = {"directory", "seed", "a"};
  EXPECT_EQ(nearest_name("momentum", known), "");
  EXPECT_EQ(nearest_name("b", known), "");  // replacing the whole name is not near
  EXPECT_EQ(nearest_name("x", {}), "");
  known = {"ramp"};
  EXPECT_EQ(nearest_name("name", known), "");  // half of it is not near
}

TEST(NearestName, FirstOfEqualsWins) {
  std::vector<std::string> known = {"beta1", "beta2"};
  EXPECT_EQ(nearest_name("beta3", known), "beta1");
}

}  // namespace
}  // namespace shoestring
