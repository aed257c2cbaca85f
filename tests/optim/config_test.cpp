#include "optim/config.h"

#include <gtest/gtest.h>

#include <set>

namespace shoestring {
namespace {

static_assert(Section<OptimConfig> && Section<ScheduleConfig> && Validated<ScheduleConfig>);

// Every number's default lies in its range, every string's among its choices.
struct DefaultsVisitor {
  std::set<std::string> names;
  template <class T>
  void operator()(std::string_view name, T& value, const Field& field) {
    EXPECT_TRUE(names.insert(std::string(name)).second) << name;
    EXPECT_FALSE(field.help.empty()) << name;
    if constexpr (Section<T>) {
      DefaultsVisitor inner;
      value.visit(inner);
      EXPECT_FALSE(inner.names.empty());
    } else if constexpr (std::is_same_v<T, std::string>) {
      EXPECT_NE(field.choices.find(value), std::string_view::npos) << name;
    } else if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
      EXPECT_GE(static_cast<double>(value), field.min) << name;
      EXPECT_LE(static_cast<double>(value), field.max) << name;
    }
  }
};

TEST(OptimConfig, DefaultsAreValidAndDescribed) {
  OptimConfig config;
  DefaultsVisitor visitor;
  config.visit(visitor);
  EXPECT_EQ(visitor.names.count("weight_decay"), 1u);
  Complaints complaints;
  config.schedule.validate(complaints);
  config.ramp.validate(complaints);
  EXPECT_TRUE(complaints.items().empty());
}

TEST(OptimConfig, SaysAllThatIsWrong) {
  ScheduleConfig schedule;
  schedule.warmup_steps = schedule.warmup_tokens = 5;
  schedule.milestones = {0.9, 0.8, 0.7};
  schedule.flat_until = 0.99;
  Complaints complaints;
  schedule.validate(complaints);
  std::set<std::string> keys;
  for (const auto& item : complaints.items()) keys.insert(item.key);
  EXPECT_EQ(keys, (std::set<std::string>{"warmup_tokens", "factors", "milestones", "decay_until"}));

  Complaints ramp_complaints;
  RampConfig{.tokens = {5, 4}, .sequences = {1}}.validate(ramp_complaints);
  EXPECT_EQ(ramp_complaints.items().size(), 2u);
}

}  // namespace
}  // namespace shoestring
