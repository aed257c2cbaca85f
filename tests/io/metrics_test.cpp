#include "io/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/check.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

std::string contents(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

MetricsRecord record(int64_t step, double loss) {
  MetricsRecord r;
  r.set("step", step);
  r.set("loss", loss);
  return r;
}

TEST(Metrics, FloatsReadBackExactly) {
  const double loss = 0.1 + 0.2;
  const std::string line = record(3, loss).json();
  EXPECT_EQ(line.rfind("{\"step\":3,\"loss\":", 0), 0u);
  EXPECT_EQ(std::strtod(line.c_str() + 17, nullptr), loss);
  EXPECT_EQ(record(1, std::nan("")).json(), "{\"step\":1,\"loss\":null}");
}

TEST(Metrics, AResumeReplacesLaterStepsAndTornLines) {
  const ScratchFolder folder;
  const std::string path = folder / "metrics.jsonl";
  {
    MetricsWriter writer(path, -1);
    for (int64_t s = 1; s <= 5; ++s) writer.write(record(s, static_cast<double>(s)));
  }
  std::ofstream(path, std::ios::app) << "{\"step\":6,\"lo";  // the crash
  {
    MetricsWriter writer(path, 3);
    writer.write(record(4, 40));
  }
  EXPECT_EQ(contents(path),
            "{\"step\":1,\"loss\":1.0}\n{\"step\":2,\"loss\":2.0}\n{\"step\":3,\"loss\":3.0}\n"
            "{\"step\":4,\"loss\":40.0}\n");
  MetricsWriter fresh(path, -1);
  EXPECT_EQ(contents(path), "");
}

// Between taking up a file and the first write there is no moment without the replaced line.
TEST(Metrics, AReplacementIsThereWithTheKeptLines) {
  const ScratchFolder folder;
  const std::string path = folder / "replaced.jsonl";
  {
    MetricsWriter writer(path, -1);
    for (int64_t s = 1; s <= 3; ++s) writer.write(record(s, static_cast<double>(s)));
  }
  const MetricsRecord third = record(3, 30);
  MetricsWriter writer(path, 2, &third);
  const std::string expected =
      "{\"step\":1,\"loss\":1.0}\n{\"step\":2,\"loss\":2.0}\n{\"step\":3,\"loss\":30.0}\n";
  EXPECT_EQ(contents(path), expected);
  writer.write(record(4, 4));
  writer.sync();
  EXPECT_EQ(contents(path), expected + "{\"step\":4,\"loss\":4.0}\n");
}

TEST(Metrics, AGarbledLineCostsNoOther) {
  const ScratchFolder folder;
  const std::string path = folder / "garbled.jsonl";
  const std::string one = "{\"step\":1,\"loss\":1.0}\n", three = "{\"step\":3,\"loss\":3.0}\n";
  std::ofstream(path) << one << "{\"st#p\":2\n" << three << "{\"step\":4";
  testing::internal::CaptureStderr();
  const MetricsWriter writer(path, 5);
  const std::string warning = testing::internal::GetCapturedStderr();
  EXPECT_EQ(contents(path), one + three);
  EXPECT_NE(warning.find(path + ", line 2"), std::string::npos) << warning;
  EXPECT_EQ(warning.find("line 4"), std::string::npos) << warning;  // torn by a crash, as usual
}

TEST(Metrics, SaysWhichStepsAreMissing) {
  const ScratchFolder folder;
  const std::string path = folder / "gaps.jsonl";
  const auto missing = [&](const std::vector<int64_t>& steps, int64_t last) {
    std::ofstream file(path);
    for (int64_t step : steps) file << record(step, 1).json() << "\n";
    file.close();
    return MetricsWriter(path, last).missing();
  };
  EXPECT_EQ(missing({1, 2, 3}, 3), "");
  EXPECT_EQ(missing({1, 2, 3, 5}, 3), "");  // done again
  EXPECT_EQ(missing({1, 2, 3}, 5), "4 to 5");
  EXPECT_EQ(missing({1, 3, 4, 8}, 8), "2, 5 to 7");
  EXPECT_EQ(missing({4}, 4), "1 to 3");
  EXPECT_EQ(missing({}, 2), "1 to 2");
  EXPECT_EQ(missing({2, 4, 6, 8, 10, 12, 14}, 15), "1, 3, 5, 7, 9 and 3 more gaps");
  EXPECT_EQ(MetricsWriter(folder / "none.jsonl", 3).missing(), "1 to 3");
  EXPECT_EQ(MetricsWriter(folder / "none.jsonl", -1).missing(), "");
}

TEST(Metrics, AFileThatCannotBeWrittenIsADataError) {
  EXPECT_THROW(MetricsWriter("/nonexistent/folder/metrics.jsonl", -1), Error);
}

}  // namespace
}  // namespace shoestring
