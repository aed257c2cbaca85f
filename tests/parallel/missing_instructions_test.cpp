#include "parallel/missing_instructions.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

using Complaints = std::vector<std::string>;

// Every instruction of every order, with and without transfers: it alone is missing.
TEST(MissingInstructions, WhateverIsDroppedIsNamedAlone) {
  for (const ScheduleEntry& entry : schedule_entries()) {
    for (const bool transfers : {false, true}) {
      Schedule good = make_schedule({.name = entry.name, .ranks = 4, .micros = 8});
      if (transfers) good = add_transfers(std::move(good));
      EXPECT_EQ(missing_complaints_of(good), Complaints()) << entry.name;
      const int rank = 2;
      for (size_t k = 0; k < good.ranks[rank].size(); ++k) {
        Schedule s = good;
        s.ranks[rank].erase(s.ranks[rank].begin() + static_cast<std::ptrdiff_t>(k));
        EXPECT_EQ(missing_complaints_of(s),
                  Complaints{"rank 2: there is no " + instruction_text(good.ranks[rank][k])})
            << entry.name;
      }
    }
  }
}

TEST(MissingInstructions, OfPassesInPartsTheParts) {
  const auto missing = [](const char* text) {
    Schedule s{.name = "by hand", .where = {}, .ranks = parse_programs(text, "text")};
    s.segments = {parse_segments("attention,dispatch,experts")};
    return missing_complaints_of(s);
  };
  EXPECT_EQ(missing("0F0.0 0F0.1~ 0F0.2 0I0.2 0W0.2 0I0.1~ 0I0.0 0W0.0\n"), Complaints());
  EXPECT_EQ(missing("0F0.0 0F0.2 0I0.2 0W0.2 0I0.1~ 0I0.0 0W0.0\n"),
            Complaints{"rank 0: there is no 0F0.1~"});
  EXPECT_EQ(missing("0F0 0I0.2 0I0.1~ 0I0.0 0W0.0\n"), Complaints{"rank 0: there is no 0W0.2"});
  EXPECT_EQ(missing("0F0 0W0.2 0I0.1~ 0I0.0\n"),
            (Complaints{"rank 0: there is no 0I0.2", "rank 0: there is no 0W0.0"}));
  EXPECT_EQ(missing("0F0\n"), Complaints{"rank 0: there is no 0B0"});
  EXPECT_EQ(missing("0B0\n"), Complaints{"rank 0: there is no 0F0"});
}

}  // namespace
}  // namespace shoestring
