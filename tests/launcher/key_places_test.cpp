#include "launcher/key_places.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(KeyPlaces, TheFirstKeyStandsInFrontAndTheOthersBehind) {
  const KeyPositions set = {{"mesh.tp", "a.toml:3:6"},        {"model.heads", "--set #1"},
                            {"model.kv_heads", "a.toml:9:1"}, {"mesh", "a.toml:2:1"},
                            {"query", "a.toml:1:2"},          {"", "a.toml:1:1"}};
  const std::string text = "mesh.tp = 3 does not divide the 4 query heads";
  EXPECT_EQ(with_places(text, set, {"model.heads"}),
            "a.toml:3:6: " + text + " [model.heads: --set #1]");
  EXPECT_EQ(with_places(text, set, {"model.layers", "mesh.tp"}), "a.toml:3:6: " + text);
  EXPECT_EQ(with_places(text, {}, {"model.heads"}), text);
}

// A key that nobody set has no place, but others that take part have one.
TEST(KeyPlaces, AnotherKeysPlaceSaysWhose) {
  const std::string text = "mesh.dp_shard does not fit: tp 2 x pp 3";
  EXPECT_EQ(with_places(text, {{"mesh.pp", "--set #2"}, {"mesh.tp", "--set #1"}}),
            "--set #1: " + text + " [mesh.tp: --set #1, mesh.pp: --set #2]");
  const std::string needs = "this run needs more; a smaller train.micro_batch needs less";
  EXPECT_EQ(with_places(needs, {{"train.micro_batch", "f:2:1"}}),
            "f:2:1: " + needs + " [train.micro_batch: f:2:1]");
}

// Parts of keys count in the section that the text begins with, and as whole words.
TEST(KeyPlaces, ShortNamesAreOfTheFirstKeysSection) {
  EXPECT_EQ(with_places("mesh.ep x etp = 4", {{"mesh.etp", "f:2:1"}, {"mesh.tp", "f:3:1"}}),
            "f:2:1: mesh.ep x etp = 4 [mesh.etp: f:2:1]");
  EXPECT_EQ(with_places("mesh.ep = 4 layers", {{"model.layers", "f:2:1"}}), "mesh.ep = 4 layers");
}

}  // namespace
}  // namespace shoestring
