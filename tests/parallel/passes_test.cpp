#include "parallel/passes.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "core/text.h"
#include "parallel/effects.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/simulate.h"

namespace shoestring {
namespace {

TEST(AddTransfers, PostsReceiptsAhead) {
  const Schedule s = add_transfers(make_schedule({.name = "gpipe", .ranks = 2, .micros = 2}), 1);
  EXPECT_TRUE(s.transfers);
  EXPECT_EQ(schedule_text(s),
            "0F0 0SA0 0RG0 0F1 0SA1 0RG1 0B0 0B1\n"
            "1RA0 1RA1 1F0 1F1 1B0 1SG0 1B1 1SG1\n");
}

// Every order with transfers runs, takes as long as without them, and keeps its text.
TEST(AddTransfers, ChangesNothingButTheTransfers) {
  for (const ScheduleEntry& entry : schedule_entries()) {
    for (const int ranks : {2, 4, 6}) {
      const Schedule plain =
          make_schedule({.name = entry.name, .ranks = ranks, .micros = 2 * ranks});
      const Schedule sent = add_transfers(plain);
      EXPECT_EQ(complaints_of(sent), std::vector<std::string>()) << entry.name << ranks;
      for (const double comm : {0.0, 0.3}) {
        const StepTimes times{.f = 1, .i = 1.5, .w = 0.5, .comm = comm};
        const Simulation a = simulate(plain, times), b = simulate(sent, times);
        EXPECT_GE(b.makespan, a.makespan - 1e-9) << entry.name << ranks;
        // A receipt is posted early enough: nothing waits for the posting.
        EXPECT_LE(b.makespan, a.makespan + 1e-9) << entry.name << ranks << " " << comm;
        for (size_t r = 0; r < a.ranks.size(); ++r) {
          EXPECT_EQ(a.ranks[r].peak_activations, b.ranks[r].peak_activations);
        }
      }
      const auto again = parse_programs(schedule_text(sent), "text");
      EXPECT_EQ(again, sent.ranks) << entry.name;
    }
  }
}

TEST(AddTransfers, RefusesWhatCannotRun) {
  Schedule s = make_schedule({.name = "1f1b", .ranks = 2, .micros = 4});
  std::swap(s.ranks[1][0], s.ranks[1][1]);
  try {
    add_transfers(s);
    FAIL() << "a backward pass before its forward pass was taken";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("rank 1 stops at 1B0"), std::string::npos) << e.what();
  }
}

// What mutations of transfers lead to, each named.
TEST(AddTransfers, BrokenTransfersAreFound) {
  const Schedule good = add_transfers(make_schedule({.name = "1f1b", .ranks = 2, .micros = 4}), 1);
  const auto complaint = [&](auto&& change) {
    Schedule s = good;
    change(s);
    const auto list = complaints_of(s);
    return list.empty() ? std::string() : list[0];
  };
  const auto find = [](Program& p, const Instruction& i) {
    return std::find(p.begin(), p.end(), i);
  };
  const Instruction send{.what = Do::SA, .stage = 0, .micro = 1};
  const Instruction receipt{.what = Do::RA, .stage = 1, .micro = 1};
  const Instruction before{.what = Do::RA, .stage = 1, .micro = 0};
  EXPECT_EQ(complaint([&](Schedule& s) { s.ranks[0].erase(find(s.ranks[0], send)); }),
            "rank 0: there is no 0SA1");
  EXPECT_EQ(complaint([&](Schedule& s) {
              std::iter_swap(find(s.ranks[1], receipt), find(s.ranks[1], before));
            }),
            "rank 1 receives 0SA1 as number 1 from rank 0, which sends 0SA0");
  EXPECT_NE(complaint([&](Schedule& s) { s.ranks[1].erase(find(s.ranks[1], receipt)); }), "");
  EXPECT_NE(complaint([&](Schedule& s) { s.ranks[1].insert(s.ranks[1].begin(), receipt); }), "");
  EXPECT_EQ(complaint([&](Schedule& s) {
              s.ranks[0].insert(s.ranks[0].begin(), {.what = Do::RA, .stage = 0, .micro = 0});
            }),
            "rank 0, 0RA0 (number 1): there is no stage before this one");
  EXPECT_EQ(complaint([&](Schedule& s) { s.transfers = false; }),
            "rank 0, 0SA0 (number 2): the other programs have no transfers");
}

}  // namespace
}  // namespace shoestring
