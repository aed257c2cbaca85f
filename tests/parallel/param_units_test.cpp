#include "parallel/param_units.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "core/model/transformer.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

// Notes in which segment each weight is asked for.
class Listener : public StoreSource {
 public:
  explicit Listener(ParamStore& store) : StoreSource(store) {}
  void acquire(int segment, Phase) override { open_ = segment; }
  Tensor weight(const Param& p) override {
    uses[p.info.name].insert(open_);
    return StoreSource::weight(p);
  }
  std::map<std::string, std::set<int>> uses;

 private:
  int open_ = -1;
};

// The names tell what a tape does, for every family.
TEST(ParamUnits, AreWhatSegmentsRead) {
  for (const ModelConfig& model : families()) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    ParamStore store(device, parameters_of(model, whole_model(model)), Dtype::f32);
    store.initialise(1);
    Listener source(store);
    Transformer transformer(model, store, whole_model(model));
    const BatchTensors batch = to_device(device, some_rows(model.vocabulary));
    Tape tape(stream, source, Tape::Mode::training);
    LayerContext context{.tape = tape, .batch = batch};
    std::vector<PredictionResult> predictions;
    transformer.run(context, {.loss_scale = 0.1, .predictions = &predictions});
    const auto units = units_of(store, 0, static_cast<int>(store.params().size()));
    int64_t at = 0;
    for (const ParamUnit& unit : units) {
      EXPECT_EQ(unit.range.begin, at) << unit.name;
      at = unit.range.end;
      std::set<int> segments;
      for (int i = unit.first; i < unit.last; ++i) {
        const auto& used = source.uses[store.params()[static_cast<size_t>(i)].info.name];
        segments.insert(used.begin(), used.end());
      }
      ASSERT_FALSE(segments.empty()) << unit.name;
      EXPECT_EQ(unit.held, segments.size() > 1) << unit.name;
      if (!unit.held) {
        EXPECT_EQ(tape.segment_name(*segments.begin()), unit.name);
      }
    }
    EXPECT_EQ(at, store.elements());
  }
}

TEST(ParamUnits, OfPartOfTheStore) {
  Device device(DeviceKind::cpu, 0, 1);
  const ModelConfig model = small_model();
  const ParamStore store(device, parameters_of(model, whole_model(model)), Dtype::f32);
  const auto units = units_of(store, 2, 6);
  ASSERT_EQ(units.size(), 2u);
  EXPECT_EQ(units[0].name, "layers.0.attention");
  EXPECT_EQ(units[1].name, "layers.0.mlp");
  EXPECT_EQ(units[0].first, 2);
  EXPECT_EQ(units[1].last, 6);
  EXPECT_EQ(units[0].range.begin, store.params()[2].offset);
  EXPECT_EQ(units[1].range.end, store.params()[6].offset);
  EXPECT_TRUE(units_of(store, 3, 3).empty());
  EXPECT_THROW(units_of(store, 3, 99), Error);
  EXPECT_EQ(segment_of(store, "tower.block.weight"), "tower.block");
}

TEST(ParamUnits, ExtentsKnowMatricesAndCosts) {
  Device device(DeviceKind::cpu, 0, 1);
  const ParamStore store(device,
                         {{.name = "a.gain", .shape = {7}},
                          {.name = "a.weight", .shape = {96, 32}, .parts = {32, 32, 32}},
                          {.name = "b.weight", .shape = {9, 3}, .parts = {5, 4}}},
                         Dtype::f32);
  const auto extents =
      extents_of(store, {.first = 1,
                         .whole = [](const Param& p) { return p.info.shape.rank() == 2; },
                         .cost = [](const Param& p) { return static_cast<double>(p.elements); }});
  ASSERT_EQ(extents.size(), 2u);
  EXPECT_EQ(extents[0].cuts, (std::vector<int64_t>{64 + 1024, 64 + 2048}));
  EXPECT_TRUE(extents[1].cuts.empty());  // at no border of the norm's units
  EXPECT_EQ(extents[0].cost, 96 * 32);
}

}  // namespace
}  // namespace shoestring
