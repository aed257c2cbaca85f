#include "launcher/measurement.h"

#include <gtest/gtest.h>

#include <sstream>

#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

TEST(Measurement, GoalsAreBoundsInTheGivenDirection) {
  EXPECT_EQ((Measurement{"a", 2, "s"}.met()), std::nullopt);
  EXPECT_EQ((Measurement{"a", 2, "s", 1.0}.met()), true);
  EXPECT_EQ((Measurement{"a", 2, "s", 1.0, true}.met()), false);
}

TEST(Measurement, JsonHasTheFiveKeys) {
  std::ostringstream out;
  print_measurements({{"speed", 2, "tokens/s", 3.0}, {"loss", 1, "nats"}}, true, out);
  const auto list = nlohmann::json::parse(out.str());
  EXPECT_EQ(
      list[0],
      (nlohmann::json{
          {"name", "speed"}, {"value", 2.0}, {"unit", "tokens/s"}, {"goal", 3.0}, {"met", false}}));
  EXPECT_TRUE(list[1]["goal"].is_null());
  EXPECT_TRUE(list[1]["met"].is_null());
}

TEST(Measurement, TablesSayWhetherAGoalWasMet) {
  std::ostringstream out;
  print_measurements({{"memory", 0.6, "ratio", 0.7, true}}, false, out);
  EXPECT_NE(out.str().find("goal <= 0.7, met"), std::string::npos) << out.str();
}

}  // namespace
}  // namespace shoestring
