#include "parallel/schedules/catalogue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "core/check.h"
#include "core/text.h"
#include "tests/parallel/schedules/order_text.h"

namespace shoestring {
namespace {

// What is published of an order, in a rank's share of the model and micro-batches. Negative where
// nothing is.
struct Published {
  double makespan = -1;  // exactly
  double most_makespan = -1;
  double peak = -1;  // of the worst rank
  double most_peak = -1;
};

Published published(const std::string& name, int p, int m, const StepTimes& t) {
  const double b = t.i + t.w, work = m * (t.f + b), plain = work + (p - 1) * (t.f + b);
  const bool unit = t.f == t.i && t.i == t.w;
  const int pairs = name == "dualpipe" ? p / 2 - 1 : p - 1;
  if (name == "gpipe") return {.makespan = plain, .peak = static_cast<double>(m)};
  if (name == "1f1b") return {.makespan = plain, .peak = std::min<double>(p, m)};
  if (name == "interleaved-1f1b") {
    return {.makespan = work + (p - 1) * (t.f + b) / 2,
            .peak = std::min(p + (p - 1) / 2.0, static_cast<double>(m))};
  }
  if (name == "zb-h1") {
    const double makespan = work + (p - 1) * (t.f + t.i - t.w);
    return {.makespan = m >= 2 * p - 1 ? makespan : -1,
            .most_makespan = plain,
            .peak = std::min<double>(p, m)};
  }
  if (name == "zb-h2") {
    // The first forward passes reach the last rank at (p - 1) F; from there on nobody waits.
    return {.makespan = m >= 2 * p - 1 && unit ? work + (p - 1) * t.f : -1,
            .most_makespan = plain,
            .peak = std::min<double>(2 * p - 1, m)};
  }
  if (name == "zb-v") {
    return {.makespan = m >= 2 * p - 1 && unit ? work + (p - 1) * t.f / 2 : -1,
            .most_makespan = plain,
            .most_peak = static_cast<double>(p)};
  }
  // Their blocks are made of passes that take as long as one another.
  if (name == "v-half") return {.most_makespan = unit ? plain : -1, .most_peak = p / 2 + 1.0};
  if (name == "v-min") {
    return {.most_makespan = unit ? plain : -1, .most_peak = std::ceil(p / 3.0) + 1};
  }
  if (name == "automatic") return {.most_makespan = plain, .most_peak = static_cast<double>(p)};
  // With FB = F + B.
  const double share = name == "dualpipe" ? 1 : 0.5,
               most = work + share * pairs * (t.f + 2 * b - 3 * t.w);
  return {.makespan = unit ? most : -1,
          .most_makespan = most,
          .peak = name == "dualpipe" ? p + 1 : p + 0.5};
}

bool legal(const std::string& name, int p, int m) {
  if (name == "interleaved-1f1b") return m % p == 0;
  if (name == "dualpipe") return p % 2 == 0 && m % 2 == 0 && m >= 2 * p;
  return name != "dualpipev" || m >= 2 * p;
}

class AllSizes : public testing::TestWithParam<std::string> {};

// simulate() refuses what cannot run: deadlocks, wrong ranks, passes that lack or are done twice.
TEST_P(AllSizes, RunAndKeepToTheirFormulas) {
  const std::string name = GetParam();
  for (int p = 2; p <= 16; ++p) {
    for (int m = 1; m <= 64; m = m < 8 || m > 56 ? m + 1 : m + 3) {
      if (!legal(name, p, m)) {
        EXPECT_THROW(make_schedule({.name = name, .ranks = p, .micros = m}), Error);
        continue;
      }
      const Schedule schedule = make_schedule({.name = name, .ranks = p, .micros = m});
      for (const StepTimes& times : {StepTimes{}, StepTimes{.f = 1, .i = 1.2, .w = 0.8},
                                     StepTimes{.f = 1, .i = 1.05, .w = 0.95}}) {
        const Simulation result = simulate(schedule, times);
        const Published is = published(name, p, m, times);
        const std::string at = cat(name, ", ", p, " ranks, ", m, " micro-batches, I = ", times.i);
        if (is.makespan >= 0) {
          EXPECT_NEAR(result.makespan, is.makespan, 1e-9) << at;
        }
        if (is.most_makespan >= 0) {
          EXPECT_LE(result.makespan, is.most_makespan + 1e-9) << at;
        }
        if (is.peak >= 0) {
          EXPECT_NEAR(worst_peak(result), is.peak, 1e-9) << at;
        }
        if (is.most_peak >= 0) {
          EXPECT_LE(worst_peak(result), is.most_peak + 1e-9) << at;
        }
      }
    }
  }
}

std::vector<std::string> names() {
  std::vector<std::string> list;
  for (const ScheduleEntry& entry : schedule_entries()) list.push_back(entry.name);
  return list;
}

INSTANTIATE_TEST_SUITE_P(Schedules, AllSizes, testing::ValuesIn(names()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Schedules, RefusalsSayWhatIsNeeded) {
  const auto message = [](const ScheduleRequest& request) -> std::string {
    try {
      make_schedule(request);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({.name = "dualpipe", .ranks = 3, .micros = 8}),
            "dualpipe needs an even number of ranks but has 3 ranks and 8 micro-batches");
  EXPECT_EQ(message({.name = "dualpipev", .ranks = 4, .micros = 7}),
            "dualpipev needs at least twice as many micro-batches as ranks but has 4 ranks and 7 "
            "micro-batches");
  EXPECT_EQ(message({.name = "interleaved-1f1b", .ranks = 4, .micros = 6}),
            "interleaved-1f1b needs a multiple of the ranks as micro-batches but has 4 ranks and 6 "
            "micro-batches");
  EXPECT_NE(message({.name = "zbh1", .ranks = 4, .micros = 6}).find("did you mean \"zb-h1\"?"),
            std::string::npos);
  EXPECT_NE(message({.name = "1f1b", .ranks = 0, .micros = 6}).find("ranks"), std::string::npos);
}

TEST(Schedules, SixtyFourRanksTakeLessThanTwoSeconds) {
  for (const std::string& name : names()) {
    const std::clock_t begin = std::clock();  // of one thread: others may use the machine
    const Schedule schedule = make_schedule({.name = name, .ranks = 64, .micros = 512});
    EXPECT_GT(simulate(schedule, {}).makespan, 3 * 512) << name;
    const auto taken = static_cast<double>(std::clock() - begin);
    EXPECT_LT(taken / CLOCKS_PER_SEC, 2) << name;
  }
}

}  // namespace
}  // namespace shoestring
