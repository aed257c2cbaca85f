#include "core/layers/linear.h"

#include "core/ops/add.h"
#include "tests/core/layers/layer_harness.h"

namespace shoestring {
namespace {

// A boundary that leaves a mark: adds the value to itself.
class Doubling : public Boundary {
 public:
  Value cross(Tape& tape, const Value& x) override { return apply<Add>(tape, {}, {x, x}); }
};

TEST(LinearLayer, MultipliesAddsTheBiasAndCrossesItsBoundaries) {
  LayerHarness h(
      {{.name = "w", .shape = {3, 4}, .deviation = 1}, {.name = "b", .shape = {3}, .deviation = 1}},
      5);
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  const Value x = tape.leaf(h.values({5, 4}, "x"), true);
  Doubling in, out;
  const LinearLayer plain{.weight = h.param("w"), .bias = h.param("b")};
  const LinearLayer crossed{.weight = h.param("w"), .bias = h.param("b"), .in = &in, .out = &out};
  const Tensor y = plain.run(context, x).tensor(), z = crossed.run(context, x).tensor();
  for (int64_t t = 0; t < 5; ++t) {
    for (int64_t o = 0; o < 3; ++o) {
      double product = 0;
      for (int64_t i = 0; i < 4; ++i) {
        product += x.tensor().data<double>()[t * 4 + i] * h.weight("w")[o * 4 + i];
      }
      const double bias = h.weight("b")[o];
      EXPECT_NEAR(y.data<double>()[t * 3 + o], product + bias, 1e-12);
      EXPECT_NEAR(z.data<double>()[t * 3 + o], 2 * (2 * product + bias), 1e-12);
    }
  }
}

}  // namespace
}  // namespace shoestring
