#include "parallel/instruction.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

TEST(Instruction, ProgramsPrintAndReadBack) {
  for (const ScheduleEntry& entry : schedule_entries()) {
    const Schedule schedule = make_schedule({.name = entry.name, .ranks = 4, .micros = 8});
    EXPECT_EQ(parse_programs(schedule_text(schedule), "text"), schedule.ranks) << entry.name;
  }
}

TEST(Instruction, TextIsStageOpMicroBatch) {
  const Program program = {{.what = Do::F, .stage = 0, .micro = 2},
                           {.what = Do::F, .with_next = true, .stage = 3, .micro = 12},
                           {.what = Do::B, .stage = 1, .micro = 1},
                           {.what = Do::W, .stage = 1, .micro = 0}};
  EXPECT_EQ(program_text(program), "0F2 3F12&1B1 1W0");
  EXPECT_EQ(parse_programs("# a comment\n\n  0F2\t3F12&1B1 1W0 # more\r\n", "x").at(0), program);
}

TEST(Instruction, PartsHaveASegmentAndSayWhetherTheyTravel) {
  const Program program = {
      {.what = Do::I, .travels = true, .stage = 1, .micro = 2, .part = 3},
      {.what = Do::F, .stage = 0, .micro = 12, .part = 0},
      {.what = Do::W, .stage = 1, .micro = 2, .part = 10},
  };
  EXPECT_EQ(program_text(program), "1I2.3~ 0F12.0 1W2.10");
  EXPECT_EQ(parse_programs("1I2.3~ 0F12.0 1W2.10\n", "x").at(0), program);
  EXPECT_TRUE(parse_programs("0F1\n", "x").at(0).at(0).whole());
}

TEST(Instruction, SegmentsAreReadByName) {
  EXPECT_EQ(parse_segments("edge,attention,mlp"),
            (StageSegments{SegmentKind::edge, SegmentKind::attention, SegmentKind::mlp}));
  EXPECT_EQ(parse_segments("combine"), StageSegments{SegmentKind::combine});
  for (const char* wrong : {"", "attention,", ",mlp", "Mlp", "mlp dispatch"}) {
    EXPECT_THROW(parse_segments(wrong), Error) << wrong;
  }
}

TEST(Instruction, MistakesNameTheirPlace) {
  const auto message = [](const char* text) -> std::string {
    try {
      parse_programs(text, "my.txt");
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message("0F0 0F1\n1F0  F1\n").substr(0, 21), "my.txt:2:6: \"F1\" is n");
  EXPECT_EQ(message("0F0\n0F1& 0B0\n"),
            "my.txt:2:1: \"0F1&\" is no instruction: a pair has no second half behind its &; write "
            "<stage><F, B, I or W><micro-batch>, as in 0F3, and join pairs by &");
  EXPECT_NE(message("&0F1").find("no first half in front of its &"), std::string::npos);
  for (const char* wrong : {"0X1", "0F", "F0", "0F1x", "0F1&", "&0F1", "-1F0", "0F99999", "0f1",
                            "0F1.", "0F1.x", "0F1~", "0F1.-1", "0F1.2~~"}) {
    EXPECT_NE(message(wrong).find("my.txt:1:1"), std::string::npos) << wrong << message(wrong);
  }
}

TEST(Instruction, PlacesInAFileStandInFrontOfComplaints) {
  Schedule schedule;
  schedule.name = "my.txt";
  schedule.ranks = parse_programs("# none\n0F0 0F1&0B0 0B1\n\n 1F0\n", "my.txt", &schedule.places);
  ASSERT_EQ(schedule.places.size(), 2u);
  EXPECT_EQ(complaint_head(schedule, 0, 2), "my.txt:2:9: rank 0, 0B0 (number 3): ");
  EXPECT_EQ(complaint_head(schedule, 1, 0), "my.txt:4:2: rank 1, 1F0 (number 1): ");
  EXPECT_EQ(line_text(schedule, 1), "my.txt:4: ");
  schedule.places.clear();
  EXPECT_EQ(complaint_head(schedule, 0, 2), "rank 0, 0B0 (number 3): ");
  EXPECT_EQ(line_text(schedule, 1), "");
}

TEST(Instruction, StagesAndRanksBelongTogether) {
  for (StageOrder order : {StageOrder::loop, StageOrder::vee, StageOrder::both_ways}) {
    const Placement where{.order = order, .ranks = 4, .chunks = 2, .micros = 8};
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(where.rank_of(where.stage_of(rank, 0), 0), rank);
      EXPECT_EQ(where.rank_of(where.stage_of(rank, 1), 7), rank);
    }
  }
}

}  // namespace
}  // namespace shoestring
