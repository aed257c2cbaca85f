#include "launcher/step_events.h"

#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using nlohmann::json;

TEST(StepEvents, EachInstructionIsInItsLane) {
  TraceWriter writer(step_lanes());
  StepEvents events(writer, 3);
  double time = 0;
  const Program program = parse_programs("0F0 0SA0 1I2.1~ 1I2.0 0R0", "a test").at(0);
  for (const Instruction& i : program) {
    events.add(i, time, time + 1);
    ++time;
  }
  std::vector<std::pair<std::string, std::string>> found;
  for (const json& e : json::parse(writer.text())) {
    if (e["ph"] == "X") found.emplace_back(e["cat"], e["name"]);
  }
  const std::vector<std::pair<std::string, std::string>> wanted = {{"compute", "0F0"},
                                                                   {"transfers", "0SA0"},
                                                                   {"rows", "1I2.1~"},
                                                                   {"compute", "1I2.0"},
                                                                   {"transfers", "0R0"}};
  EXPECT_EQ(found, wanted);
}

TEST(StepEvents, APairIsOneEventFromTheFirstsBeginToTheLastsEnd) {
  TraceWriter writer(step_lanes());
  StepEvents events(writer, 0);
  const Program pair = parse_programs("0F3&3B5 0F4", "a test").at(0);
  events.add(pair[0], 1, 2);
  events.add(pair[1], 2, 4);
  events.add(pair[2], 5, 6);
  std::vector<json> complete;
  for (const json& e : json::parse(writer.text())) {
    if (e["ph"] == "X") complete.push_back(e);
  }
  ASSERT_EQ(complete.size(), 2u);
  EXPECT_EQ(complete[0]["name"], "0F3&3B5");
  EXPECT_DOUBLE_EQ(complete[0]["ts"], 1e6);
  EXPECT_DOUBLE_EQ(complete[0]["dur"], 3e6);
  EXPECT_EQ(complete[1]["name"], "0F4");
  EXPECT_DOUBLE_EQ(complete[1]["ts"], 5e6);
}

TEST(StepEvents, ALaneOfCommunicationIsOfTheKindOfGroup) {
  EXPECT_EQ(communication_lane("tp/2"), "communication tp");
  EXPECT_EQ(communication_lane("activations 0 to 1/0"), "communication activations 0 to 1");
  EXPECT_EQ(communication_lane("world"), "communication world");
}

}  // namespace
}  // namespace shoestring
