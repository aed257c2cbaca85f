#include "launcher/schedule_picture.h"

#include <gtest/gtest.h>

#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(SchedulePicture, HasABoxForEveryInstructionAndARowForEveryRank) {
  for (const char* name : {"1f1b", "zb-v", "dualpipe"}) {
    const Schedule schedule = make_schedule({.name = name, .ranks = 4, .micros = 8});
    const std::string svg = schedule_svg(schedule, simulate(schedule, {}));
    size_t instructions = 0;
    for (const Program& program : schedule.ranks) instructions += program.size();
    // Besides them: the background, a row a rank and four of the legend.
    EXPECT_EQ(count(svg, "<rect "), instructions + 1 + 4 + 4) << name;
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(count(svg, ">rank " + std::to_string(rank) + "<"), 1u);
    }
    EXPECT_EQ(count(svg, "<svg "), 1u);
    EXPECT_TRUE(svg.ends_with("</svg>\n"));
  }
}

// The first pass begins where the row does; the last one ends where the row ends.
TEST(SchedulePicture, BoxesStandWhereTheyRun) {
  const Schedule schedule = make_schedule({.name = "gpipe", .ranks = 1, .micros = 1});
  const std::string svg = schedule_svg(schedule, simulate(schedule, {.f = 1, .i = 1, .w = 2}));
  EXPECT_EQ(count(svg, "x=\"64.00\" y=\"44.00\" width=\"14.00\" height=\"26.00\" fill=\"#3b73af\""),
            1u)
      << svg;
  EXPECT_EQ(count(svg, "x=\"78.00\" y=\"44.00\" width=\"42.00\" height=\"26.00\" fill=\"#3a8f5c\""),
            1u)
      << svg;
}

TEST(SchedulePicture, ManyInstructionsStayInAWidthThatCanBeShown) {
  const Schedule schedule = make_schedule({.name = "1f1b", .ranks = 4, .micros = 500});
  const std::string svg = schedule_svg(schedule, simulate(schedule, {}));
  EXPECT_NE(svg.find("viewBox=\"0 0 1680.00 "), std::string::npos);
  EXPECT_LT(svg.size(), 1u << 20);
}

}  // namespace
}  // namespace shoestring
