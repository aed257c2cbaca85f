#include "core/fp8/layer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "tests/core/fp8/fp8_twin.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

std::vector<ParamInfo> infos(int64_t outputs = 70, int64_t inputs = 200) {
  const Shape shape{outputs, inputs};
  auto matrix = [&](const std::string& name, ParamClass c = ParamClass::hidden) {
    return ParamInfo{.name = name, .shape = shape, .param_class = c};
  };
  std::vector<ParamInfo> list = {matrix("embedding.weight", ParamClass::embedding)};
  for (int i = 0; i < 4; ++i) {
    const std::string at = cat("layers.", i, ".");
    list.push_back(
        {.name = at + "gain", .shape = {inputs}, .param_class = ParamClass::gain, .deviation = 0});
    list.push_back(matrix(at + "attention.qkv.weight"));
    list.push_back(matrix(at + "attention.output.weight"));
    list.push_back(matrix(at + "moe.router.weight"));
  }
  list.push_back(matrix("mtp.0.projection.weight"));
  list.push_back(matrix("mtp.0.mlp.down.weight"));
  list.push_back(matrix("head.weight", ParamClass::head));
  return list;
}

Fp8Recipe recipe(const std::string& name = "deepseek_v3",
                 const std::function<void(PrecisionConfig&)>& change = {}) {
  PrecisionConfig c;
  c.recipe = name;
  if (change) change(c);
  return resolve(c);
}

TEST(Fp8Plan, TakesTheMatricesThatTheRecipeNames) {
  Device device;
  ParamStore store(device, infos(), Dtype::bf16);
  const Fp8Plan plan(recipe("deepseek_v3",
                            [](PrecisionConfig& c) {
                              c.first_layers_bf16 = 1;
                              c.last_layers_bf16 = 1;
                            }),
                     store, 4);
  std::vector<std::string> names;
  for (const Fp8Layer* layer : plan.layers()) names.push_back(layer->param().info.name);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "layers.1.attention.qkv.weight", "layers.1.attention.output.weight",
                       "layers.2.attention.qkv.weight", "layers.2.attention.output.weight",
                       "mtp.0.mlp.down.weight"}));
  EXPECT_EQ(plan.layer(store.param("layers.0.attention.qkv.weight")), nullptr);
  // Not even where the list does not name it.
  const Fp8Plan all(recipe("deepseek_v3", [](PrecisionConfig& c) { c.keep_bf16 = {}; }), store, 4);
  EXPECT_EQ(all.layer(store.param("layers.1.moe.router.weight")), nullptr);
  EXPECT_NE(all.layer(store.param("mtp.0.projection.weight")), nullptr);
  const Fp8Layer& output = *plan.layer(store.param("layers.1.attention.output.weight"));
  EXPECT_EQ(output.input().scales, ScaleKind::power_of_two);
  EXPECT_EQ(output.copy(), Fp8Copy::e5m6);
}

TEST(Fp8Plan, AFallenLayerIsNoLongerHandedOut) {
  Device device;
  ParamStore store(device, infos(), Dtype::bf16);
  Fp8Plan plan(recipe(), store, 4);
  const Param& p = store.param("layers.2.attention.qkv.weight");
  EXPECT_NE(plan.layer(p), nullptr);
  plan.fall_back(p);
  EXPECT_EQ(plan.layer(p), nullptr);
  EXPECT_TRUE(plan.fell_back(p));
  EXPECT_EQ(plan.layers().size(), 9u);
}

TEST(Fp8Plan, AFallenLayerGivesItsCodesBack) {
  Device device;
  Stream stream = Stream::immediate(device);
  ParamStore store(device, infos(), Dtype::bf16);
  store.initialise(3);
  Fp8Plan plan(recipe(), store, 4);
  const Param& p = store.param("layers.2.attention.qkv.weight");
  const int64_t before = device.ledger().current_total();
  for (bool along_outputs : {false, true}) {
    plan.layer(p)->weight_codes(stream, store.weight(p), along_outputs);
  }
  EXPECT_GT(device.ledger().current_total(), before + p.elements);
  plan.fall_back(p);
  EXPECT_EQ(device.ledger().current_total(), before);
}

struct Results {
  Tensor y, dx, dw;
  Fp8Kept owed;
};

class Fixture {
 public:
  explicit Fixture(const Fp8Recipe& recipe,
                   const std::string& name = "layers.1.attention.qkv.weight")
      : store_(device_, infos(), Dtype::bf16),
        param_(store_.param(name)),
        layer_(recipe, store_, param_) {
    store_.initialise(3);
    w_ = store_.weight(param_);
    x_ = spread_tensor(device_, {150, 200}, Dtype::bf16, "x");
    dy_ = spread_tensor(device_, {150, 70}, Dtype::bf16, "dy");
  }
  Results run() {
    const Fp8Tensor x8 = layer_.wants_codes() ? quantise(stream_, x_, layer_.input()) : Fp8Tensor();
    Results r;
    r.y = layer_.forward(stream_, x_, x8, w_);
    const Fp8Kept kept = layer_.keep(stream_, x_, x8);
    r.dx = layer_.input_gradient(stream_, dy_, w_, r.owed);
    r.dw = Tensor::zeros(device_, {70, 200}, Dtype::f32);
    layer_.weight_gradient(stream_, r.owed, kept, r.dw);
    return r;
  }
  // What the recipe says, by the twin of the product.
  void expect_products(const Results& r, const Fp8Encoding& x_turned, bool e5m6 = false) {
    const Fp8Recipe& recipe = layer_.recipe();
    const Fp8Tensor x8 = quantise(stream_, x_, layer_.input());
    const Fp8Tensor w8 = quantise(stream_, w_, recipe.weight);
    expect({.c = r.y, .a = x8, .b = w8, .transpose_b = true});
    expect({.c = r.dx, .a = quantise(stream_, dy_, recipe.gradient), .b = w8});
    Fp8Encoding turned = recipe.gradient;
    turned.tile = turned.tile.transposed();
    const Tensor stored = e5m6 ? load_e5m6(stream_, store_e5m6(stream_, x_), 200, Dtype::f32)
                               : dequantise(stream_, x8, Dtype::f32);
    expect({.c = r.dw,
            .a = quantise(stream_, dy_, turned),
            .b = quantise(stream_, stored, x_turned),
            .transpose_a = true});
  }
  Device& device() { return device_; }
  ParamStore& store() { return store_; }
  Fp8Layer& layer() { return layer_; }

 private:
  void expect(const Fp8Product& p) {
    const TwinProduct twin = twin_product(p, 128);
    for (int64_t i = 0; i < p.c.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      const double want = static_cast<double>(twin.values[at]);
      const double narrow = p.c.dtype() == Dtype::bf16 ? std::fabs(want) * 0x1p-8 : 0;
      ASSERT_NEAR(static_cast<double>(value_at(p.c, i)), want,
                  narrow + 0x1p-20 * twin.magnitudes[at])
          << p.c.text() << " element " << i;
    }
  }
  Device device_;
  Stream stream_ = Stream::immediate(device_);
  ParamStore store_;
  const Param& param_;
  Fp8Layer layer_;

 public:
  Tensor x_, dy_, w_;
};

TEST(Fp8Layer, MultipliesAsTheReportSays) {
  Fixture f(recipe());
  f.expect_products(f.run(), {Dtype::f8e4m3, {128, 1}, ScaleKind::plain});
}

TEST(Fp8Layer, ThePowersOfTwoAndE5M6BehindAttention) {
  Fixture f(recipe(), "layers.1.attention.output.weight");
  f.expect_products(f.run(), {Dtype::f8e4m3, {128, 1}, ScaleKind::power_of_two}, true);
}

// One byte a value and its scales, made once for each direction: what dy leaves behind.
TEST(Fp8Layer, TheWeightGradientIsOwedInCodes) {
  for (const char* name : {"deepseek_v3", "mxfp8", "per_tensor", "block_gradients"}) {
    Fixture f(recipe(name));
    Stream stream = Stream::immediate(f.device());
    const Fp8Kept owed = f.run().owed;
    const Fp8Tensor want = quantise(stream, f.dy_, f.layer().gradient().transposed());
    EXPECT_FALSE(owed.values) << name;
    ASSERT_EQ(owed.codes.text(), want.codes.text()) << name;
    ASSERT_EQ(owed.scales.text(), want.scales.text()) << name;
    EXPECT_EQ(0, std::memcmp(owed.codes.raw(), want.codes.raw(), want.codes.bytes())) << name;
    EXPECT_EQ(0, std::memcmp(owed.scales.raw(), want.scales.raw(), want.scales.bytes())) << name;
    EXPECT_EQ(owed.codes.block()->kind(), MemoryKind::activations) << name;
  }
  Fixture input(recipe("deepseek_v3", [](PrecisionConfig& c) { c.dgrad = false; }));
  const Fp8Kept alone = input.run().owed;
  EXPECT_TRUE(alone.codes && !alone.values);
  Fixture weight(recipe("deepseek_v3", [](PrecisionConfig& c) { c.wgrad = false; }));
  EXPECT_EQ(weight.run().owed.values.block(), weight.dy_.block());
}

TEST(Fp8Layer, ACopyInE5M6ThatIsThereIsTaken) {
  Fixture f(recipe(), "layers.1.attention.output.weight");
  Stream stream = Stream::immediate(f.device());
  const E5M6Tensor made = store_e5m6(stream, f.x_);
  const Fp8Kept kept = f.layer().keep(stream, f.x_, {}, made);
  EXPECT_EQ(kept.codes.block(), made.codes.block());
  EXPECT_EQ(kept.scales.block(), made.scales.block());
}

TEST(Fp8Layer, OneScaleATensor) {
  Fixture f(recipe("per_tensor"));
  f.expect_products(f.run(), {Dtype::f8e4m3, {0, 0}, ScaleKind::plain});
}

TEST(Fp8Layer, ProductsThatStayBf16AreThoseOfBf16) {
  const auto all = [](PrecisionConfig& c) { c.fprop = c.dgrad = c.wgrad = false; };
  Fixture plain(recipe("deepseek_v3", all));
  const Results want = plain.run();
  const auto bits = [](const Tensor& a, const Tensor& b) {
    return std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
  };
  Fixture forward(recipe("deepseek_v3", [](PrecisionConfig& c) { c.fprop = false; }));
  Fixture input(recipe("deepseek_v3", [](PrecisionConfig& c) { c.dgrad = false; }));
  Fixture weight(recipe("deepseek_v3", [](PrecisionConfig& c) { c.wgrad = false; }));
  Results r = forward.run();
  EXPECT_TRUE(bits(r.y, want.y) && !bits(r.dx, want.dx) && !bits(r.dw, want.dw));
  r = input.run();
  EXPECT_TRUE(!bits(r.y, want.y) && bits(r.dx, want.dx) && !bits(r.dw, want.dw));
  r = weight.run();
  EXPECT_TRUE(!bits(r.y, want.y) && !bits(r.dx, want.dx) && bits(r.dw, want.dw));
}

TEST(Fp8Layer, ErrorsAreThoseOfThreeBits) {
  for (const char* name : {"deepseek_v3", "mxfp8", "per_tensor", "block_gradients"}) {
    Fixture f(recipe(name));
    Fp8Probe probe;
    const Results plain = f.run();
    f.layer().set_probe(&probe);
    const Results probed = f.run();
    EXPECT_EQ(0, std::memcmp(plain.y.raw(), probed.y.raw(), plain.y.bytes()));
    EXPECT_EQ(0, std::memcmp(plain.dx.raw(), probed.dx.raw(), plain.dx.bytes()));
    EXPECT_EQ(0, std::memcmp(plain.dw.raw(), probed.dw.raw(), plain.dw.bytes()));
    ASSERT_EQ(probe.figures().size(), 3u) << name;
    for (const auto& [key, figures] : probe.figures()) {
      EXPECT_GT(figures.relative_error(), 0.01) << name << " " << name_of(key.second);
      EXPECT_LT(figures.relative_error(), 0.09) << name << " " << name_of(key.second);
    }
  }
}

// Codes of a weight are made once and again when the store says that it has changed.
TEST(Fp8Layer, AWeightsCodesLiveForOneVersion) {
  Fixture f(recipe());
  const Results before = f.run();
  f.store().master(f.layer().param()).data<float>()[0] += 100;
  f.store().refresh_compute(0, f.store().elements());
  EXPECT_EQ(0, std::memcmp(before.y.raw(), f.run().y.raw(), before.y.bytes()));
  f.store().raise_version();
  EXPECT_NE(0, std::memcmp(before.y.raw(), f.run().y.raw(), before.y.bytes()));
}

TEST(Fp8Layer, ScalesAlongEachContractionWhereTilesAreNotSquare) {
  Fixture f(recipe("mxfp8"));
  const Results r = f.run();
  Stream stream = Stream::immediate(f.device());
  const Fp8Encoding micro{Dtype::f8e4m3, {1, 32}, ScaleKind::power_of_two};
  const Fp8Encoding turned{Dtype::f8e4m3, {32, 1}, ScaleKind::power_of_two};
  const Fp8Product p{
      .c = r.dx, .a = quantise(stream, f.dy_, micro), .b = quantise(stream, f.w_, turned)};
  const TwinProduct twin = twin_product(p, 32);
  for (int64_t i = 0; i < r.dx.elements(); ++i) {
    const auto at = static_cast<size_t>(i);
    ASSERT_NEAR(value_at(r.dx, i), twin.values[at],
                std::fabs(twin.values[at]) * 0x1p-8 + 0x1p-20 * twin.magnitudes[at]);
  }
}

}  // namespace
}  // namespace shoestring
