#include "io/trace.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/check.h"
#include "nlohmann/json.hpp"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(Trace, WritesCompleteEventsWithNamedLanes) {
  TraceWriter trace;
  trace.event(1, "compute", "forward", 0.5, 0.75, "micro-batch 0");
  trace.event(1, "communication", "all_reduce", 0.6, 0.7);
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
      EXPECT_EQ(e["args"]["detail"], "micro-batch 0");
    }
    complete += e["ph"] == "X" ? 1 : 0;
    names += e["ph"] == "M" ? 1 : 0;
  }
  EXPECT_EQ(complete, 2);
  EXPECT_EQ(names, 3);  // one rank, two lanes
  EXPECT_THROW(trace.write("/nonexistent/folder/trace.json"), Error);
}

}  // namespace
}  // namespace shoestring
