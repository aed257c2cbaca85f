#include "io/trace.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/check.h"
#include "nlohmann/json.hpp"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(Trace, WritesCompleteEventsWithNamedLanes) {
  TraceWriter trace({"compute", "waits"});
  trace.event(1, "communication tp", "all_reduce", 0.6, 0.7);
  trace.event(1, "compute", "forward", 0.5, 0.75, {{"group", "tp/0"}, {"bytes", 4096}});
  const ScratchFolder folder;
  const std::string path = folder / "trace.json";
  trace.write(path);
  const auto json = nlohmann::json::parse(std::ifstream(path));
  int complete = 0, names = 0;
  for (const auto& e : json["traceEvents"]) {
    if (e["ph"] == "X" && e["name"] == "forward") {
      EXPECT_DOUBLE_EQ(e["ts"], 0.5e6);
      EXPECT_DOUBLE_EQ(e["dur"], 0.25e6);
      EXPECT_EQ(e["pid"], 1);
      EXPECT_EQ(e["args"]["group"], "tp/0");
      EXPECT_EQ(e["args"]["bytes"], 4096);
      EXPECT_EQ(e["tid"], 0);
    } else if (e["ph"] == "X") {
      EXPECT_EQ(e["cat"], "communication");
      EXPECT_EQ(e["tid"], 2);
      EXPECT_FALSE(e.contains("args"));
    }
    complete += e["ph"] == "X" ? 1 : 0;
    names += e["ph"] == "M" ? 1 : 0;
  }
  EXPECT_EQ(complete, 2);
  EXPECT_EQ(names, 5);  // one rank, two lanes with their places
  EXPECT_THROW(trace.write("/nonexistent/folder/trace.json"), Error);
}

}  // namespace
}  // namespace shoestring
