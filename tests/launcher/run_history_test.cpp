#include "launcher/run_history.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(RunHistory, ReadsTheLastWholeLineBack) {
  const ScratchFolder folder;
  const RunDirectory directory(folder.path());
  EXPECT_FALSE(last_metrics(directory));
  MetricsRecord record;
  record.set("step", int64_t{7});
  record.set("loss", 0.1 + 0.2);
  record.set("whole", 3.0);
  record.set("unknown", NAN);
  record.set("sample", std::string("It \"was\"\n"));
  const std::string line = record.json();
  write_file(directory.metrics(), "{\"step\":6}\n" + line + "\n");
  ASSERT_TRUE(last_metrics(directory));
  EXPECT_EQ(last_metrics(directory)->json(), line);
  write_file(directory.metrics(), line + "\n{\"step\":8,\"lo");  // torn by a crash
  EXPECT_EQ(last_metrics(directory)->json(), line);
  for (const char* broken : {"", "\n", "torn", "[1]\n", "{\"step\":\n"}) {
    write_file(directory.metrics(), broken);
    EXPECT_FALSE(last_metrics(directory)) << broken;
  }
}

TEST(RunHistory, FindsTheLineBehindManyOthers) {
  const ScratchFolder folder;
  const RunDirectory directory(folder.path());
  std::string text;
  for (int i = 0; i < 100000; ++i) append(text, "{\"step\":", i, ",\"loss\":1.5}\n");
  write_file(directory.metrics(), text);
  EXPECT_EQ(number_in(*last_metrics(directory), "step", -1), 99999);
}

TEST(RunHistory, SecondsAreTheLongestAccount) {
  const ScratchFolder folder;
  const RunDirectory directory(folder.path());
  EXPECT_EQ(seconds_so_far(directory), 0);
  write_file(directory.metrics(), "{\"step\":6,\"wall_seconds\":12.5}\n");
  EXPECT_EQ(seconds_so_far(directory), 12.5);
  directory.write_text("summary.json", "{\"seconds\": 14.5}");  // an evaluation and a save later
  EXPECT_EQ(seconds_so_far(directory), 14.5);
  write_file(directory.metrics(), "{\"step\":9,\"wall_seconds\":20.0}\n");  // a later start
  EXPECT_EQ(seconds_so_far(directory), 20);
  for (const char* broken : {"", "[]", "{\"seconds\": null}", "{"}) {
    directory.write_text("summary.json", broken);
    EXPECT_EQ(seconds_so_far(directory), 20) << broken;
  }
}

TEST(RunHistory, NumbersOfItems) {
  MetricsRecord record;
  record.set("count", int64_t{7});
  record.set("value", 2.5);
  record.set("text", std::string("x"));
  record.set("none", NAN);
  EXPECT_EQ(number_in(record, "count", -1), 7);
  EXPECT_EQ(number_in(record, "value", -1), 2.5);
  for (const char* name : {"text", "none", "missing"}) EXPECT_EQ(number_in(record, name, -1), -1);
}

TEST(RunHistory, LeavesOutWhatIsMadeAgain) {
  MetricsRecord record;
  for (const char* name : {"loss", "validation_loss", "validation_loss/a", "sample"}) {
    record.set(name, 1.0);
  }
  EXPECT_EQ(without(record, {"validation_loss", "sample"}).json(), "{\"loss\":1.0}");
}

}  // namespace
}  // namespace shoestring
