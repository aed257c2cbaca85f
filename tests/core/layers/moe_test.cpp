#include "core/layers/moe.h"

#include <cmath>

#include "core/check.h"
#include "core/ops/router_logits.h"
#include "tests/core/layers/layer_harness.h"

namespace shoestring {
namespace {

constexpr int64_t d = 6, m = 5, experts = 8, rows = 12;

MoeConfig some_config() {
  return {.experts = experts,
          .chosen = 3,
          .ffn = m,
          .shared = 2,
          .scores = "sigmoid",
          .groups = 4,
          .groups_chosen = 2,
          .scaling = 2.5,
          .balance = {.sequence = 0.3, .switch_loss = 0.2, .global_batch = 0.1, .z_loss = 0.05}};
}

std::vector<ParamInfo> parameters(const MoeConfig& c) {
  std::vector<ParamInfo> list = {
      {.name = "b.moe.router.weight", .shape = {experts, d}, .deviation = 1},
      {.name = "b.moe.experts.gate_up.weight", .shape = {experts * 2 * m, d}, .deviation = 1},
      {.name = "b.moe.experts.down.weight", .shape = {experts * d, m}, .deviation = 1}};
  if (c.shared > 0) {
    const int64_t f = c.shared * m;
    list.push_back({.name = "b.moe.shared.gate_up.weight", .shape = {2 * f, d}, .deviation = 1});
    list.push_back({.name = "b.moe.shared.down.weight", .shape = {d, f}, .deviation = 1});
  }
  return list;
}

// The SwiGLU mlp of one row: weights [2 f, d] and [d, f].
std::vector<double> mlp(const double* x, const double* gate_up, const double* down, int64_t f) {
  std::vector<double> y(d, 0);
  for (int64_t j = 0; j < f; ++j) {
    double gate = 0, up = 0;
    for (int64_t i = 0; i < d; ++i) {
      gate += x[i] * gate_up[j * d + i];
      up += x[i] * gate_up[(f + j) * d + i];
    }
    const double product = gate / (1 + std::exp(-gate)) * up;
    for (int64_t o = 0; o < d; ++o) y[static_cast<size_t>(o)] += product * down[o * f + j];
  }
  return y;
}

TEST(MoeLayer, CutsTheSegmentThatItIsIn) {
  const MoeConfig config = some_config();
  LayerHarness h(parameters(config), rows);
  const MoeLayer layer = bind_moe(config, h.store(), "b");
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  const Value x = tape.leaf(h.values({rows, d}, "x"), true);
  layer.run(context, x);
  EXPECT_EQ(tape.num_segments(), 0);
  tape.begin_segment("b.attention");
  layer.run(context, x);
  tape.end_segment();
  ASSERT_EQ(tape.num_segments(), 5);
  EXPECT_EQ(tape.segment_name(1), "b.dispatch");
  EXPECT_EQ(tape.segment_name(2), "b.experts");
  EXPECT_EQ(tape.segment_name(3), "b.combine");
  EXPECT_EQ(tape.segment_name(4), "b.shared");
}

TEST(MoeLayer, SumsTheChosenExpertsAndTheSharedOne) {
  const MoeConfig config = some_config();
  LayerHarness h(parameters(config), rows);
  const MoeLayer layer = bind_moe(config, h.store(), "b");
  layer.bias.data<float>()[2] = 0.4f;  // part of the store's state
  EXPECT_EQ(h.store().state("b.moe.router.bias", {experts}).data<float>()[2], 0.4f);
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  const Value x = tape.leaf(h.values({rows, d}, "x"), true);
  const Tensor y = layer.run(context, x).tensor();
  // The router by itself says who and how much.
  Tape alone = h.tape(Tape::Mode::inference);
  Tensor logits(h.device(), {rows, experts}, Dtype::f64);
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t e = 0; e < experts; ++e) {
      double sum = 0;
      for (int64_t i = 0; i < d; ++i) {
        sum += x.tensor().data<double>()[t * d + i] * h.weight("b.moe.router.weight")[e * d + i];
      }
      logits.data<double>()[t * experts + e] = sum;
    }
  }
  const auto [ids, gates, figures] =
      apply<Route>(alone, layer.routing, {Value(logits), Value(layer.bias)});
  for (int64_t t = 0; t < rows; ++t) {
    const double* row = x.tensor().data<double>() + t * d;
    std::vector<double> want = mlp(row, h.weight("b.moe.shared.gate_up.weight"),
                                   h.weight("b.moe.shared.down.weight"), 2 * m);
    for (int64_t k = 0; k < 3; ++k) {
      const int64_t e = ids.tensor().data<int32_t>()[t * 3 + k];
      const std::vector<double> part =
          mlp(row, h.weight("b.moe.experts.gate_up.weight") + e * 2 * m * d,
              h.weight("b.moe.experts.down.weight") + e * d * m, m);
      for (size_t i = 0; i < want.size(); ++i) {
        want[i] += gates.tensor().data<double>()[t * 3 + k] * part[i];
      }
    }
    for (int64_t i = 0; i < d; ++i) {
      EXPECT_NEAR(y.data<double>()[t * d + i], want[static_cast<size_t>(i)], 1e-10);
    }
  }
  const RouteFigures told = RouteFigures::of(tape.told().at("b.routing"));
  const RouteFigures same = RouteFigures::of(figures.tensor());
  EXPECT_TRUE(std::equal(told.counts.begin(), told.counts.end(), same.counts.begin()));
  EXPECT_EQ(tape.told().at("b.offsets").data<int32_t>()[experts], rows * 3);
  EXPECT_EQ(tape.told().at("b.received").block(), tape.told().at("b.offsets").block());
}

// What backward follows: sum of y * dy, and the losses as the figures tell them, times the share.
double objective(LayerHarness& h, const MoeLayer& layer, const Tensor& x, const Tensor& dy,
                 double share) {
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch(), .share = share};
  const Tensor y = layer.run(context, tape.leaf(x, true)).tensor();
  double sum = 0;
  for (int64_t i = 0; i < y.elements(); ++i) sum += y.data<double>()[i] * dy.data<double>()[i];
  const RouteFigures f = RouteFigures::of(tape.told().at("b.routing"));
  double switch_loss = 0;
  for (size_t e = 0; e < f.counts.size(); ++e) {
    switch_loss += experts * f.counts[e] * f.probabilities[e] / (f.tokens * f.tokens);
  }
  const Route::Attributes& a = layer.routing;
  return sum + share * (a.sequence_factor * f.sequence +
                        (a.micro_factor + a.global_factor) * switch_loss +
                        a.z_factor * f.squared_lse / f.tokens);
}

TEST(MoeLayer, GradientsEqualCentralDifferences) {
  for (const char* scores : {"sigmoid", "softmax"}) {
    MoeConfig config = some_config();
    config.scores = scores;
    config.renormalise = config.scores == "sigmoid";
    LayerHarness h(parameters(config), rows);
    const MoeLayer layer = bind_moe(config, h.store(), "b");
    const Tensor x = h.values({rows, d}, "x"), dy = h.values({rows, d}, "dy");
    constexpr double share = 0.7, step = 1e-6;
    Tape tape = h.tape();
    LayerContext context{.tape = tape, .batch = h.batch(), .share = share};
    const Value leaf = tape.leaf(x, true);
    tape.seed(layer.run(context, leaf), dy);
    tape.backward_input();
    EXPECT_GT(tape.owed(), 0);
    tape.backward_weight();
    const Tensor dx = tape.take_gradient(leaf);
    auto slope = [&](double& at) {
      const double value = at;
      at = value + step;
      const double up = objective(h, layer, x, dy, share);
      at = value - step;
      const double down = objective(h, layer, x, dy, share);
      at = value;
      return (up - down) / (2 * step);
    };
    for (int64_t i = 0; i < x.elements(); ++i) {
      EXPECT_NEAR(dx.data<double>()[i], slope(x.data<double>()[i]), 2e-6) << "x " << i;
    }
    for (const Param& p : h.store().params()) {
      const Tensor weight = h.store().weight(p), gradient = h.store().gradient(p);
      for (int64_t i = 0; i < p.elements; i += 7) {
        EXPECT_NEAR(gradient.data<double>()[i], slope(weight.data<double>()[i]), 2e-6)
            << p.info.name << " " << i;
      }
    }
  }
}

// The global-batch loss follows the load that is filled in between forward and backward, and no
// later one.
TEST(MoeLayer, ReadsTheLoadInTheBackwardPass) {
  MoeConfig config = some_config();
  config.balance = {.global_batch = 1};
  config.shared = 0;
  LayerHarness h(parameters(config), rows);
  const MoeLayer layer = bind_moe(config, h.store(), "b");
  auto router_gradient = [&](bool own) {
    h.store().zero_gradients();
    ExpertLoads loads;
    Tape tape = h.tape();
    LayerContext context{.tape = tape, .batch = h.batch(), .loads = &loads};
    const Value y = layer.run(context, tape.leaf(h.values({rows, d}, "x"), true));
    const RouteFigures f = RouteFigures::of(tape.told().at("b.routing"));
    std::vector<double> counts(f.counts.begin(), f.counts.end());
    if (!own) counts[0] += 100;
    add_load(loads.at("b"), counts, f.tokens);
    counts[1] += 1000;
    add_load(loads.at("b"), counts, f.tokens);  // another micro-batch's
    EXPECT_EQ(loads.at("b")->tokens, 2 * f.tokens);
    tape.seed(y, Tensor::zeros(h.device(), {rows, d}, Dtype::f64));
    tape.backward();
    const std::span<double> g =
        h.store().gradient(h.store().param("b.moe.router.weight")).span<double>();
    return std::vector<double>(g.begin(), g.end());
  };
  const std::vector<double> own = router_gradient(true), other = router_gradient(false);
  EXPECT_NE(own, other);
  h.store().zero_gradients();
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  tape.seed(layer.run(context, tape.leaf(h.values({rows, d}, "x"), true)),
            Tensor::zeros(h.device(), {rows, d}, Dtype::f64));
  tape.backward();
  const Tensor g = h.store().gradient(h.store().param("b.moe.router.weight"));
  for (size_t i = 0; i < own.size(); ++i) EXPECT_NEAR(g.data<double>()[i], own[i], 1e-14);
}

TEST(MoeLayer, DropsBeyondTheCapacityInTrainingAlone) {
  MoeConfig config = some_config();
  config.shared = 0;
  LayerHarness h(parameters(config), rows);
  const Tensor x = h.values({rows, d}, "x");
  auto outputs = [&](double capacity, Tape::Mode mode, int64_t* used) {
    config.capacity = capacity;
    const MoeLayer layer = bind_moe(config, h.store(), "b");
    Tape tape = h.tape(mode);
    LayerContext context{.tape = tape, .batch = h.batch()};
    const Tensor y = layer.run(context, tape.leaf(x, true)).tensor();
    if (used) *used = tape.told().at("b.offsets").data<int32_t>()[experts];
    return std::vector<double>(y.data<double>(), y.data<double>() + y.elements());
  };
  int64_t used = 0;
  const auto whole = outputs(0, Tape::Mode::training, &used);
  EXPECT_EQ(used, rows * 3);
  EXPECT_NE(outputs(0.5, Tape::Mode::training, &used), whole);
  EXPECT_LE(used, experts * 3);  // ceil(0.5 * 12 * 3 / 8) rows each
  EXPECT_EQ(outputs(0.5, Tape::Mode::inference, nullptr), whole);
}

// Half of a micro-batch's rows beside a rank with the others: the logits of all of them come in,
// and the choice of its own goes on.
class OtherLogits : public Boundary {
 public:
  explicit OtherLogits(Tensor all) : all_(std::move(all)) {}
  Value cross(Tape& tape, const Value&) override { return tape.leaf(all_, false); }

 private:
  Tensor all_;
};
class FirstHalf : public Boundary {
 public:
  Value cross(Tape& tape, const Value& x) override {
    return tape.leaf(x.tensor().rows(0, x.tensor().rows() / 2), false);
  }
};

// The rows here are a part of the micro-batch: the whole of it has the capacity.
TEST(MoeLayer, ACapacityIsOfTheWholeMicroBatch) {
  MoeConfig config = some_config();
  config.shared = 0;
  config.capacity = 0.5;
  LayerHarness h(parameters(config), rows);
  MoeLayer layer = bind_moe(config, h.store(), "b");
  const Tensor x = h.values({rows, d}, "x");
  Tape whole = h.tape();
  LayerContext of_whole{.tape = whole, .batch = h.batch()};
  const Tensor want = layer.run(of_whole, whole.leaf(x, true)).tensor();
  const Value logits = apply<RouterLogits>(whole, {}, {whole.leaf(x, true)}, {layer.router});
  OtherLogits all(logits.tensor());
  FirstHalf half;
  layer.gather_logits = &all;
  layer.keep_rows = &half;
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  const Tensor y = layer.run(context, tape.leaf(x.rows(0, rows / 2), true)).tensor();
  for (int64_t i = 0; i < y.elements(); ++i) {
    EXPECT_EQ(y.data<double>()[i], want.data<double>()[i]) << "row " << i / d;
  }
  const int32_t here = tape.told().at("b.offsets").data<int32_t>()[experts];
  EXPECT_LT(here, rows / 2 * 3) << "nothing was dropped";
}

}  // namespace
}  // namespace shoestring
