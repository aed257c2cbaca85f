#include "launcher/schedule_picture.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>

#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"

namespace shoestring {
namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(SchedulePicture, HasABoxForEveryInstructionAndARowForEveryRank) {
  // With the legend's: each op that occurs, of the ranks' first stages and of others, and idle.
  const std::pair<const char*, size_t> orders[] = {{"1f1b", 3}, {"zb-v", 7}, {"dualpipe", 9}};
  for (const auto& [name, legend] : orders) {
    const Schedule schedule = make_schedule({.name = name, .ranks = 4, .micros = 8});
    const std::string svg = schedule_svg(schedule, simulate(schedule, {}));
    size_t instructions = 0;
    for (const Program& program : schedule.ranks) instructions += program.size();
    // Besides them: the background and a row a rank.
    EXPECT_EQ(count(svg, "<rect "), instructions + 1 + 4 + legend) << name;
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(count(svg, ">rank " + std::to_string(rank) + "<"), 1u);
    }
    EXPECT_EQ(count(svg, "<svg "), 1u);
    EXPECT_TRUE(svg.ends_with("</svg>\n"));
  }
}

// Every fill of a box has an entry of the legend, and every entry's fill another box.
void expect_all_explained(const Schedule& schedule, const StepTimes& times) {
  const std::string svg = schedule_svg(schedule, simulate(schedule, times));
  const size_t rows = svg.find(">rank 0<");
  const std::string legend = svg.substr(0, rows), picture = svg.substr(rows);
  const auto fills = [](const std::string& text) {
    std::set<std::string> found;
    for (size_t at = 0; (at = text.find("fill=\"#", at)) != std::string::npos; ++at) {
      found.insert(text.substr(at, 14));
    }
    return found;
  };
  std::set<std::string> drawn = fills(picture);
  if (legend.find(">idle<") == std::string::npos) drawn.erase("fill=\"#f2f2f2\"");  // covered
  EXPECT_EQ(fills(legend), drawn) << schedule.name;
  EXPECT_EQ(legend.find("number: micro-batch") != legend.npos,
            picture.find("text-anchor") != picture.npos)
      << schedule.name;
}

TEST(SchedulePicture, TheLegendExplainsWhatThereIsAndNothingElse) {
  for (const ScheduleEntry& entry : schedule_entries()) {
    const Schedule schedule = make_schedule({.name = entry.name, .ranks = 4, .micros = 8});
    expect_all_explained(schedule, {});
    const std::string svg = schedule_svg(schedule, simulate(schedule, {}));
    const bool pairs = schedule_text(schedule).find('&') != std::string::npos;
    EXPECT_EQ(count(svg, ">one above the other: interleaved<"), pairs ? 1u : 0u) << entry.name;
    EXPECT_EQ(count(svg, ">rows travel between ranks<"), 0u) << entry.name;
  }
  // Alone nothing is idle; without arithmetic of a kind its boxes are still there.
  const Schedule alone = make_schedule({.name = "gpipe", .ranks = 1, .micros = 3});
  const std::string svg = schedule_svg(alone, simulate(alone, {}));
  EXPECT_EQ(count(svg, ">idle<"), 0u);
  EXPECT_EQ(count(svg, "another stage"), 0u);
  EXPECT_EQ(count(svg, ">backward for"), 0u);
}

TEST(SchedulePicture, TheLegendOfPartsHasTheRowsThatTravel) {
  Schedule schedule = make_schedule({.name = "dualpipe", .ranks = 4, .micros = 8});
  StepTimes times;
  times.segments.fill({1, 1, 1});
  std::vector<StageSegments> segments(4, parse_segments("attention,dispatch,experts,combine"));
  schedule.segments = segments;
  schedule = split_segments(std::move(schedule), std::move(segments), times);
  expect_all_explained(schedule, times);
  const std::string svg = schedule_svg(schedule, simulate(schedule, times));
  EXPECT_EQ(count(svg, ">rows travel between ranks<"), 1u);
}

// A file's name may be anything; text outside of the picture's width would be lost.
TEST(SchedulePicture, NamesAreEscapedAndTheLegendStaysInside) {
  Schedule schedule = make_schedule({.name = "zb-v", .ranks = 2, .micros = 1});
  schedule.name = "a<b&c";
  const std::string svg = schedule_svg(schedule, simulate(schedule, {}));
  EXPECT_EQ(count(svg, ">a&lt;b&amp;c: makespan"), 1u);
  EXPECT_NE(svg.find("viewBox=\"0 0 560.00 "), std::string::npos) << svg;
  EXPECT_EQ(count(svg, "y=\"24.00\" width=\"10.00\""), 3u) << svg;  // others in further lines
  for (size_t at = 0; (at = svg.find("<text x=\"", at)) != std::string::npos; ++at) {
    const size_t text = svg.find('>', at) + 1, end = svg.find('<', text);
    const double x = std::stod(svg.substr(at + 9));
    EXPECT_LT(x + 5.5 * static_cast<double>(end - text), 560) << svg.substr(text, end - text);
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
