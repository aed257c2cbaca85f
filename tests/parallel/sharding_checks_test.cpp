#include "parallel/sharding_checks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/text.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/sharding_pass.h"
#include "parallel/simulate.h"

namespace shoestring {
namespace {

std::string first_complaint(const char* text, int micros = 1) {
  Schedule s{.name = "by hand", .where = {}, .ranks = parse_programs(text, "text")};
  s.where = {.ranks = static_cast<int>(s.ranks.size()), .micros = micros};
  const std::vector<std::string> all = complaints_of(s);
  return all.empty() ? "" : all[0];
}

TEST(ShardingChecks, NameRankAndInstruction) {
  EXPECT_EQ(first_complaint("0G0 0F0 0R0 0G0 0B0 0R0 0S0\n1G0 1F0 1B0 1R0 1S0\n"), "");
  EXPECT_EQ(first_complaint("0G0 0F0 0R0 0B0 0S0\n1G0 1F0 1B0 1R0 1S0\n"),
            "rank 0, 0B0 (number 4): it needs the weights of stage 0, which are not gathered");
  EXPECT_EQ(first_complaint("0G0 0F0 0B0 0R0 0S0\n1F0 1B0 1S0\n"),
            "rank 1, 1F0 (number 1): it needs the weights of stage 1, which are not gathered");
  EXPECT_EQ(first_complaint("0G0 0F0 0B0 0R0 0R0\n1G0 1F0 1B0 1R0\n"),
            "rank 0, 0R0 (number 5): the weights of stage 0 are not gathered");
  EXPECT_EQ(first_complaint("0G0 0G0 0F0 0B0 0R0\n1G0 1F0 1B0 1R0\n"),
            "rank 0, 0G0 (number 2): the weights of stage 0 are gathered already");
  EXPECT_EQ(
      first_complaint("0G0 0F0 0B0\n1G0 1F0 1B0 1R0\n"),
      "rank 0, 0G0 (number 1): the weights of stage 0 are never let go: there is no R behind it");
  EXPECT_EQ(
      first_complaint("0F0 0B0 0S0\n1F0 1B0\n"),
      "rank 1, 1B0 (number 2): gradients of stage 1, micro-batch 0 are left: there is no S behind "
      "it");
  EXPECT_EQ(first_complaint("0F0 0B0 0S0 0S0\n1F0 1B0 1S0\n"),
            "rank 0, 0S0 (number 4): stage 0 has no gradients of this micro-batch that wait for S");
  EXPECT_EQ(
      first_complaint("0F0 0F1 0B0 0S0 0B1\n1F0 1F1 1B0 1B1 1S1\n", 2),
      "rank 0, 0B1 (number 5): gradients of stage 0, micro-batch 1 are left: there is no S behind "
      "it");
  EXPECT_EQ(first_complaint("0F0 0F1 0B0 0S1 0B1 0S0\n1F0 1F1 1B0 1B1 1S1\n", 2),
            "rank 0, 0S1 (number 4): stage 0 has no gradients of this micro-batch that wait for S");
  // W reads no weights.
  EXPECT_EQ(first_complaint("0G0 0F0 0I0 0R0 0W0\n1G0 1F0 1B0 1R0\n"), "");
  EXPECT_EQ(first_complaint("1G0 0F0 0B0\n1F0 1B0 1R0\n"),
            "rank 0, 1G0 (number 1): stage 1 of this micro-batch is on rank 1");
  EXPECT_EQ(first_complaint("0G0&0F0 0B0 0R0\n1G0 1F0 1B0 1R0\n"),
            "rank 0, 0G0 (number 1): a transfer cannot be one of a pair");
}

// Any G, R or S that is dropped, doubled or moved over what needs it is found.
TEST(ShardingChecks, MutationsAreFound) {
  std::mt19937 random(3);
  int tried = 0;
  for (const ScheduleEntry& entry : schedule_entries()) {
    const Schedule good =
        add_sharding(make_schedule({.name = entry.name, .ranks = 4, .micros = 8}), {.hold = 0});
    for (int round = 0; round < 12; ++round) {
      Schedule bad = good;
      Program& p = bad.ranks[random() % 4];
      size_t at = random() % p.size();
      while (!is_sharding(p[at].what)) at = (at + 1) % p.size();
      if (round % 2 == 0) {
        p.erase(p.begin() + static_cast<std::ptrdiff_t>(at));
      } else {
        p.insert(p.begin() + static_cast<std::ptrdiff_t>(at), p[at]);
      }
      const auto complaints = complaints_of(bad);
      EXPECT_FALSE(complaints.empty()) << entry.name << round;
      if (!complaints.empty()) {
        EXPECT_EQ(complaints[0].substr(0, 4), "rank") << complaints[0];
      }
      ++tried;
    }
  }
  EXPECT_GT(tried, 100);
}

}  // namespace
}  // namespace shoestring
