#include "parallel/located_source.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

ParamInfo matrix(std::string name) {
  ParamInfo info;
  info.name = std::move(name);
  info.shape = {4, 8};
  return info;
}

TEST(LocatedSource, TellsOfTheParameterAndHandsItOn) {
  Device device(DeviceKind::cpu, 0, 1);
  ParamStore store(device, {matrix("layers.0.up"), matrix("layers.1.up")}, Dtype::f32);
  StoreSource inner(store);
  Whereabouts rank;
  const Param &first = store.params()[0], &second = store.params()[1];
  {
    const WhereaboutsScope scope(&rank);
    LocatedSource source(inner);
    EXPECT_EQ(source.weight(first).raw(), inner.weight(first).raw());
    EXPECT_EQ(rank.place(), "layers.0.up");
    EXPECT_EQ(source.gradient(second).raw(), inner.gradient(second).raw());
    EXPECT_EQ(rank.place(), "layers.1.up");
  }
  LocatedSource nobody(inner);  // of a thread that works for no rank
  nobody.weight(first);
  EXPECT_EQ(rank.place(), "layers.1.up");
}

}  // namespace
}  // namespace shoestring
