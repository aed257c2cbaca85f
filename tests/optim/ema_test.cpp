#include "optim/ema.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"
#include "tests/optim/support.h"

namespace shoestring {
namespace {

TEST(WeightAverage, FollowsTheDoubleTwin) {
  const std::vector<Param> params = small_model();
  const FlatRange all{0, flat_elements(params)};
  Device device;
  Flat flat(params, 1);
  WeightAverage average(device, params, {{all}}, {flat.master, 0}, 0.9);
  std::vector<double> twin(flat.master.begin(), flat.master.end());
  for (int step = 1; step <= 30; ++step) {
    Flat::fill(params, 5, "master" + std::to_string(step), 1, flat.master);
    average.update({flat.master, 0});
    for (size_t i = 0; i < twin.size(); ++i) twin[i] = 0.9 * twin[i] + 0.1 * flat.master[i];
  }
  int64_t covered = 0;
  for (const StateTensor& s : average.state()) {
    EXPECT_EQ(s.kind, "ema");
    for (const Param& p : params) {
      if (p.info.name != s.name) continue;
      for (int64_t i = s.begin; i < s.end; ++i) {
        ASSERT_NEAR(s.values.data<float>()[i - s.begin], twin[static_cast<size_t>(p.offset + i)],
                    2e-6);
        ++covered;
      }
    }
  }
  int64_t parameters = 0;
  for (const Param& p : params) parameters += p.elements;
  EXPECT_EQ(covered, parameters);
}

TEST(WeightAverage, SwapsInAndOutBitForBit) {
  const std::vector<Param> params = small_model();
  const FlatRange all{0, flat_elements(params)};
  Device device;
  Flat flat(params, 1);
  const std::vector<float> start = flat.master;
  WeightAverage average(device, params, {{all}}, {flat.master, 0}, 0.5);
  Flat::fill(params, 5, "later", 1, flat.master);
  const std::vector<float> later = flat.master;
  average.swap({flat.master, 0});
  EXPECT_TRUE(same_bits(flat.master, start));
  EXPECT_THROW(average.update({flat.master, 0}), Error);
  EXPECT_THROW(average.state(), Error);
  average.swap({flat.master, 0});
  EXPECT_TRUE(same_bits(flat.master, later));
  EXPECT_GT(device.ledger().current(MemoryKind::moments), 0);
}

TEST(WeightAverage, RefusesADecayThatIsNone) {
  const std::vector<Param> params = small_model();
  Device device;
  Flat flat(params, 1);
  EXPECT_THROW(WeightAverage(device, params, {}, {flat.master, 0}, 0), Error);
  EXPECT_THROW(WeightAverage(device, params, {}, {flat.master, 0}, 1), Error);
}

}  // namespace
}  // namespace shoestring
