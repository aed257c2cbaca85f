#include "io/loader_config.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

std::vector<std::string> complaints(const LoaderConfig& config) {
  Complaints c;
  config.validate(c);
  std::vector<std::string> keys;
  for (const auto& item : c.items()) keys.push_back(item.key);
  return keys;
}

TEST(LoaderConfig, SourcesAreComplete) {
  LoaderConfig config;
  EXPECT_TRUE(complaints(config).empty());
  config.sources = {{.name = "a", .path = "x.h5", .weight = 1, .held_out = {}},
                    {.name = "", .path = "y.h5", .weight = 0, .held_out = 1.0}};
  EXPECT_TRUE(complaints(config).empty());
  EXPECT_EQ(config.sources[1].label(), "y.h5");
}

TEST(LoaderConfig, ReportsEveryMistake) {
  LoaderConfig config;
  config.sources = {{.name = "a", .path = "", .weight = 0, .held_out = {}},
                    {.name = "a", .path = "y.h5", .weight = 0, .held_out = {}}};
  EXPECT_EQ(complaints(config),
            (std::vector<std::string>{"sources.0.path", "sources.1.name", "sources"}));
  config.sources = {{.name = "a", .path = "x", .weight = 1, .held_out = 1.0}};
  EXPECT_EQ(complaints(config), (std::vector<std::string>{"sources.0.weight"}));
}

}  // namespace
}  // namespace shoestring
