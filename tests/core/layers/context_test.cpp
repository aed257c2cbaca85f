#include "core/layers/context.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(Context, PolicyNamesAreKnownAndOthersListThem) {
  EXPECT_EQ(recompute_from_name("none"), Recompute::none);
  EXPECT_EQ(recompute_from_name("swiglu"), Recompute::swiglu);
  EXPECT_EQ(recompute_from_name("norms"), Recompute::norms);
  EXPECT_EQ(recompute_from_name("attention"), Recompute::attention);
  EXPECT_EQ(recompute_from_name("block"), Recompute::block);
  try {
    recompute_from_name("full");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("none, swiglu, norms, attention, block"),
              std::string::npos);
  }
}

TEST(Context, TablesOfAMicroBatchMustFitItsRows) {
  Device device;
  MicroBatch m{.sequences = 1, .length = 2, .tokens = {1, 2}};
  m.labels = {2, -1};
  m.positions = {0, 1};
  m.first_key = {0, 0};
  const BatchTensors t = to_device(device, m);
  EXPECT_EQ(t.tokens.data<int32_t>()[1], 2);
  EXPECT_EQ(t.first_key.shape(), (Shape{1, 2}));
  EXPECT_GT(device.ledger().current(MemoryKind::data), 0);
  m.labels.pop_back();
  EXPECT_THROW(to_device(device, m), Error);
}

}  // namespace
}  // namespace shoestring
