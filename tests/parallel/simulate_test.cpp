#include "parallel/simulate.h"

#include <gtest/gtest.h>

#include <random>

#include "core/check.h"
#include "core/text.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

Schedule by_hand(const char* text, int micros) {
  Schedule schedule{.name = "by hand", .where = {}, .ranks = parse_programs(text, "text")};
  schedule.where = {.ranks = static_cast<int>(schedule.ranks.size()), .micros = micros};
  return schedule;
}

TEST(Simulate, CountsTimesAndTransfers) {
  const Schedule schedule = by_hand("0F0 0B0\n1F0 1I0 1W0\n", 1);
  const Simulation s = simulate(schedule, {.f = 1, .i = 2, .w = 3, .comm = 0.25});
  EXPECT_EQ(s.ranks[1].start, (std::vector<double>{1.25, 2.25, 4.25}));
  EXPECT_EQ(s.ranks[0].start, (std::vector<double>{0, 4.5}));  // 1I0 hands on before 1W0
  EXPECT_EQ(s.makespan, 9.5);
  EXPECT_EQ(s.ranks[0].busy, 6);
  EXPECT_EQ(s.ranks[0].bubble, 3.5);
  EXPECT_EQ(s.ranks[1].bubble, 3.5);
  EXPECT_EQ(s.ranks[1].window_bubble, 0);
  EXPECT_EQ(s.ranks[0].peak_activations, 1);
}

TEST(Simulate, APairTakesItsOwnTime) {
  const Schedule schedule = by_hand("0F0 0F1&0B0 0B1\n", 2);
  EXPECT_EQ(simulate(schedule, {}).makespan, 6);
  EXPECT_EQ(simulate(schedule, {.fb = 2.5}).makespan, 1 + 2.5 + 2);
  EXPECT_EQ(simulate(schedule, {.fb = 2.5}).ranks[0].peak_activations, 2);
}

// One rank, F1 beside B0, of attention, dispatch, experts and combine. Times of a part: 1, of rows
// 0.5 but for the last combine's 3.
TEST(Simulate, WhatTravelsRunsBesideAndIsExposedWhereNothingElseCan) {
  const char* text = "0F0 0I0.3~ 0F1.0 0F1.1~ 0I0.2 0W0.2 0I0.1~ 0F1.2 0F1.3~ 0I0.0 0W0.0 0B1\n";
  Schedule schedule = by_hand(text, 2);
  schedule.segments = {parse_segments("attention,dispatch,experts,combine")};
  StepTimes times;
  const auto set = [&](SegmentKind kind, const SegmentTimes& t) {
    times.segments[static_cast<size_t>(kind)] = t;
  };
  set(SegmentKind::attention, {1, 1, 1});
  set(SegmentKind::experts, {1, 1, 1});
  set(SegmentKind::dispatch, {0.5, 0.5, 0});
  set(SegmentKind::combine, {3, 0.5, 0});
  const Simulation s = simulate(schedule, times);
  // F0 whole: 5.5, of which 3.5 exposed; the pair's parts from there.
  EXPECT_EQ(s.ranks[0].start,
            (std::vector<double>{0, 5.5, 5.5, 6.5, 6.5, 7.5, 8.5, 8.5, 9.5, 9.5, 10.5, 12.5}));
  EXPECT_EQ(s.ranks[0].end[8], 12.5);  // F1's combine
  EXPECT_EQ(s.ranks[0].busy, 2 + 6 + 4);
  EXPECT_EQ(s.ranks[0].exposed,
            3.5 + 1 + 1);  // B1 waits from 11.5 to 12.5 and travels itself for 1
  EXPECT_EQ(s.makespan, 17.5);
  EXPECT_EQ(s.ranks[0].bubble, 0);
  EXPECT_EQ(s.ranks[0].peak_activations, 2);
}

TEST(Simulate, ComplaintsNameRankAndInstruction) {
  const auto first = [](const char* text, int micros = 1) -> std::string {
    const std::vector<std::string> all = complaints_of(by_hand(text, micros));
    return all.empty() ? "" : all[0];
  };
  EXPECT_EQ(first("0F0 0B0\n1F0 1B0\n"), "");
  EXPECT_EQ(first("0B0 0F0\n1F0 1B0\n"),
            "rank 0 stops at 0B0 (number 1): what the forward pass saved of stage 0, micro-batch 0 "
            "never comes");
  EXPECT_EQ(first("0F0 0I0\n1F0 1B0\n"), "rank 0: there is no 0W0");
  EXPECT_EQ(first("0F0 0F0 0B0\n1F0 1B0\n"),
            "rank 0, 0F0 (number 2): what the forward pass saved of stage 0, micro-batch 0 is made "
            "twice");
  EXPECT_EQ(first("0F0 1B0\n1F0 0B0\n"),
            "rank 0, 1B0 (number 2): stage 1 of this micro-batch is on rank 1");
  EXPECT_EQ(first("0F1 0B1\n1F1 1B1\n"), "rank 0, 0F1 (number 1): there are micro-batches 0 to 0");
  EXPECT_EQ(first("0F0 0B0\n1F0 1B0\n", 2), "rank 0: there is no 0F1");
  try {
    simulate(by_hand("0B0 0F0\n1F0 1B0\n", 1), {});
    ADD_FAILURE() << "it ran";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("rank 0 stops at 0B0"), std::string::npos);
  }
}

// Changes of one instruction. True when the result does the same work, in another order.
bool mutate(Schedule& schedule, std::mt19937& random) {
  const auto draw = [&](size_t n) { return static_cast<size_t>(random() % n); };
  Program& program = schedule.ranks[draw(schedule.ranks.size())];
  const size_t at = draw(program.size());
  switch (draw(4)) {
    case 0:
      program.erase(program.begin() + static_cast<std::ptrdiff_t>(at));
      return false;
    case 1:
      program.insert(program.begin() + static_cast<std::ptrdiff_t>(draw(program.size())),
                     program[at]);
      return false;
    case 2: {
      const size_t other = draw(program.size());
      std::swap(program[at], program[other]);
      return true;
    }
    default:
      program[at].micro = static_cast<int16_t>((program[at].micro + 1) % schedule.where.micros);
      return false;
  }
}

// Lost, doubled and changed passes are always caught. Swapped ones are caught or run: what runs has
// done every pass, or the simulation would have stopped.
TEST(Simulate, MutantsAreCaught) {
  std::mt19937 random(7);
  int caught_swaps = 0, swaps = 0;
  for (const ScheduleEntry& entry : schedule_entries()) {
    const Schedule original = make_schedule({.name = entry.name, .ranks = 4, .micros = 8});
    ASSERT_TRUE(complaints_of(original).empty());
    for (int i = 0; i < 200; ++i) {
      Schedule mutant = original;
      const bool swapped = mutate(mutant, random);
      const std::vector<std::string> complaints = complaints_of(mutant);
      if (!swapped) {
        EXPECT_FALSE(complaints.empty()) << entry.name << "\n" << schedule_text(mutant);
        continue;
      }
      ++swaps;
      caught_swaps += complaints.empty() ? 0 : 1;
      if (complaints.empty()) {
        EXPECT_GT(simulate(mutant, {}).makespan, 0);
      } else {
        EXPECT_NE(complaints[0].find("rank"), std::string::npos) << complaints[0];
      }
    }
  }
  EXPECT_GT(caught_swaps, swaps / 4);
}

}  // namespace
}  // namespace shoestring
