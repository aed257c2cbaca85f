#include "core/layers/mlp.h"

#include <cmath>

#include "tests/core/layers/layer_harness.h"

namespace shoestring {
namespace {

TEST(MlpLayer, IsDownOfSiluGateTimesUp) {
  constexpr int64_t d = 3, f = 4, rows = 5;
  LayerHarness h({{.name = "gu", .shape = {2 * f, d}, .deviation = 1},
                  {.name = "down", .shape = {d, f}, .deviation = 1}},
                 rows);
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  const MlpLayer mlp{.gate_up = {.weight = h.param("gu")}, .down = {.weight = h.param("down")}};
  const Value x = tape.leaf(h.values({rows, d}, "x"), true);
  const Tensor y = mlp.run(context, x).tensor();
  const double* in = x.tensor().data<double>();
  for (int64_t t = 0; t < rows; ++t) {
    double product[f];
    for (int64_t j = 0; j < f; ++j) {
      double gate = 0, up = 0;
      for (int64_t i = 0; i < d; ++i) {
        gate += in[t * d + i] * h.weight("gu")[j * d + i];
        up += in[t * d + i] * h.weight("gu")[(f + j) * d + i];
      }
      product[j] = gate / (1 + std::exp(-gate)) * up;
    }
    for (int64_t o = 0; o < d; ++o) {
      double want = 0;
      for (int64_t j = 0; j < f; ++j) want += product[j] * h.weight("down")[o * f + j];
      EXPECT_NEAR(y.data<double>()[t * d + o], want, 1e-11);
    }
  }
}

}  // namespace
}  // namespace shoestring
