#include "core/ops/head_loss.h"

#include <cstring>

#include "core/ops/head_loss_reference.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Sizes {
  int64_t tokens, width, vocabulary;
};

struct Task {
  HeadLoss::Inputs inputs;
  std::vector<int32_t> labels;
};

Task make_task(Device& device, const Sizes& s, Dtype dtype) {
  Task result;
  for (int64_t t = 0; t < s.tokens; ++t) {
    result.labels.push_back(t % 5 == 3 ? -1 : static_cast<int32_t>(t * 7919 % s.vocabulary));
  }
  result.inputs.x =
      make_tensor(device, {s.tokens, s.width}, dtype, random_values(s.tokens * s.width, 1));
  result.inputs.weight = make_tensor(device, {s.vocabulary, s.width}, dtype,
                                     random_values(s.vocabulary * s.width, 2, 0.5));
  result.inputs.labels = make_ids(device, result.labels);
  return result;
}

// The whole definition on any scalar: sum of scale * (loss + penalty).
template <class S>
S total_loss(const Sizes& s, const HeadLoss::Attributes& a, const std::vector<S>& x,
             const std::vector<S>& w, const std::vector<int32_t>& labels) {
  S total = 0;
  std::vector<S> z(static_cast<size_t>(s.vocabulary));
  for (int64_t t = 0; t < s.tokens; ++t) {
    if (labels[static_cast<size_t>(t)] < 0) continue;
    for (int64_t v = 0; v < s.vocabulary; ++v) {
      S dot = 0;
      for (int64_t i = 0; i < s.width; ++i) {
        dot += x[static_cast<size_t>(t * s.width + i)] * w[static_cast<size_t>(v * s.width + i)];
      }
      z[static_cast<size_t>(v)] = a.logit_multiplier * dot;
    }
    const auto row = reference::loss_row(z.data(), s.vocabulary, labels[static_cast<size_t>(t)],
                                         a.z_coefficient);
    total += a.loss_scale * (row.loss + row.penalty);
  }
  return total;
}

struct Gradients {
  HeadLoss::Result result;
  Tensor dx, dw, losses;
};

Gradients run(Device& device, const HeadLoss::Attributes& a, const Task& task) {
  Stream stream = Stream::immediate(device);
  Gradients g;
  const Dtype sums = task.inputs.x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  g.dw = Tensor::zeros(device, task.inputs.weight.shape(), sums);
  g.result = HeadLoss::forward(stream, a, task.inputs, {&g.dx, &g.dw, &g.losses});
  return g;
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (double v : values) most = std::max(most, std::abs(v));
  return most;
}

// The f64 path is the oracle of the others: its gradients against complex steps of the definition.
TEST(HeadLoss, GradientsByComplexStep) {
  Device device;
  const Sizes s{5, 4, 7};
  const HeadLoss::Attributes a{.loss_scale = 0.3, .logit_multiplier = 1.7, .z_coefficient = 0.05};
  const Task in = make_task(device, s, Dtype::f64);
  const Gradients g = run(device, a, in);
  const auto x = values_of(in.inputs.x), w = values_of(in.inputs.weight);
  EXPECT_NEAR(a.loss_scale * (g.result.loss_sum + g.result.penalty_sum),
              total_loss(s, a, x, w, in.labels), 1e-13);
  EXPECT_EQ(g.result.count, 4);
  const auto cx = complex_of(x), cw = complex_of(w);
  expect_complex_step([&](const auto& v) { return total_loss(s, a, v, cw, in.labels); }, x,
                      values_of(g.dx), "dx");
  expect_complex_step([&](const auto& v) { return total_loss(s, a, cx, v, in.labels); }, w,
                      values_of(g.dw), "dw");
}

TEST(HeadLoss, AgreesWithF64InF32AndBf16) {
  Device device(DeviceKind::cpu, 0, 2);
  for (const Sizes& s : {Sizes{1, 1, 2}, Sizes{7, 13, 33}, Sizes{70, 40, 2200}}) {
    const HeadLoss::Attributes a{
        .loss_scale = 0.01, .logit_multiplier = 0.8, .z_coefficient = 1e-3};
    for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      const Task in = make_task(device, s, dtype);
      const Gradients g = run(device, a, in);
      Task wide = in;
      wide.inputs.x = make_tensor(device, in.inputs.x.shape(), Dtype::f64, values_of(in.inputs.x));
      wide.inputs.weight =
          make_tensor(device, in.inputs.weight.shape(), Dtype::f64, values_of(in.inputs.weight));
      const Gradients o = run(device, a, wide);
      const double count = static_cast<double>(o.result.count);
      // A logit is a sum of `width` products, good to a few f32 units of its largest terms.
      const double logit_error =
          4 * std::sqrt(static_cast<double>(s.width)) * 8 * roundoff(Dtype::f32);
      EXPECT_NEAR(g.result.loss_sum, o.result.loss_sum, count * logit_error);
      EXPECT_NEAR(g.result.penalty_sum, o.result.penalty_sum, count * logit_error);
      EXPECT_EQ(g.result.count, o.result.count);
      EXPECT_EQ(g.result.correct, o.result.correct);
      expect_near(g.losses, values_of(o.losses), {2, 2 * logit_error}, "token losses");
      const auto dx = values_of(o.dx), dw = values_of(o.dw);
      // Logit gradients are rounded to x's type before the products.
      const double u = roundoff(dtype);
      expect_near(g.dx, dx, {2, (4 * u + 4 * logit_error) * largest(dx)}, "dx");
      expect_near(g.dw, dw, {2, (4 * u + 4 * logit_error) * largest(dw)}, "dw");
    }
  }
}

TEST(HeadLoss, ChunksChangeNoLossAndNoRowOfDxInExactMode) {
  const Sizes s{150, 24, 130};
  for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
    Device device(DeviceKind::cpu, 0, 2);
    const Task in = make_task(device, s, dtype);
    HeadLoss::Attributes a{.loss_scale = 0.1, .exact = true};
    const Gradients whole = run(device, a, in);
    for (int64_t rows : {1, 3, 64}) {
      a.chunk_bytes = rows * s.vocabulary * (dtype == Dtype::f64 ? 8 : 4);
      ASSERT_EQ(HeadLoss::chunk_rows(a, s.vocabulary, dtype), rows);
      const Gradients chunked = run(device, a, in);
      EXPECT_EQ(chunked.result.loss_sum, whole.result.loss_sum);
      expect_same_bits(chunked.dx, whole.dx, "dx");
      expect_same_bits(chunked.losses, whole.losses, "losses");
      const auto dw = values_of(whole.dw);
      const double bound = 150 * roundoff(dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32);
      expect_near(chunked.dw, dw, {2, bound * largest(dw)}, "dw");
    }
  }
}

TEST(HeadLoss, ExactModeAddsTheOwnGradientInOneAddition) {
  Device device(DeviceKind::cpu, 0, 2);
  const Sizes s{90, 16, 50};
  const Task in = make_task(device, s, Dtype::f32);
  const HeadLoss::Attributes a{.chunk_bytes = 7 * 50 * 4, .exact = true};
  const Gradients own = run(device, a, in);
  const auto before = random_values(50 * 16, 9, 100);
  Tensor dw = make_tensor(device, {50, 16}, Dtype::f32, before), dx;
  Stream stream = Stream::immediate(device);
  HeadLoss::forward(stream, a, in.inputs, {&dx, &dw});
  for (size_t i = 0; i < before.size(); ++i) {
    const float sum = static_cast<float>(before[i]) + own.dw.data<float>()[i];
    ASSERT_EQ(dw.data<float>()[i], sum) << i;
  }
}

TEST(HeadLoss, SameBitsOnAnyNumberOfThreads) {
  const Sizes s{130, 20, 301};
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (bool exact : {false, true}) {
      const HeadLoss::Attributes a{
          .z_coefficient = 1e-2, .chunk_bytes = 64 * 301 * 4, .exact = exact};
      Device one(DeviceKind::cpu, 0, 1);
      const Gradients first = run(one, a, make_task(one, s, dtype));
      for (int threads = 2; threads <= 4; ++threads) {
        Device device(DeviceKind::cpu, 0, threads);
        const Gradients other = run(device, a, make_task(device, s, dtype));
        EXPECT_EQ(other.result.loss_sum, first.result.loss_sum);
        EXPECT_EQ(other.result.penalty_sum, first.result.penalty_sum);
        expect_same_bits(other.dx, first.dx, "dx");
        expect_same_bits(other.dw, first.dw, "dw");
      }
    }
  }
}

TEST(HeadLoss, LogitsNeverExistWhole) {
  Device device(DeviceKind::cpu, 0, 2);
  const Sizes s{640, 8, 1000};
  const Task in = make_task(device, s, Dtype::bf16);
  run(device, {.chunk_bytes = 64 * 1000 * 4}, in);
  // The chunk and what the products pack; all logits would be 2,560,000 bytes.
  EXPECT_LT(device.ledger().peak(MemoryKind::workspace), 700000);
  EXPECT_GE(device.ledger().peak(MemoryKind::workspace), 64 * 1000 * 4);
}

TEST(HeadLoss, MaskedTokensGiveNoLossAndNoGradient) {
  Device device(DeviceKind::cpu, 0, 2);
  Task in = make_task(device, {10, 6, 20}, Dtype::f32);
  for (int32_t& label : in.labels) label = -1;
  in.labels[7] = 3;
  in.inputs.labels = make_ids(device, in.labels);
  // In chunks of two rows: most chunks hold no label at all.
  const Gradients g = run(device, {.chunk_bytes = 2 * 20 * 4}, in);
  EXPECT_EQ(g.result.count, 1);
  const auto dx = values_of(g.dx), losses = values_of(g.losses);
  for (size_t i = 0; i < dx.size(); ++i) EXPECT_EQ(dx[i] != 0, i / 6 == 7) << i;
  for (size_t t = 0; t < losses.size(); ++t) EXPECT_EQ(losses[t] != 0, t == 7) << t;
  for (int32_t& label : in.labels) label = -1;
  in.inputs.labels = make_ids(device, in.labels);
  const Gradients none = run(device, {}, in);
  EXPECT_EQ(none.result.count, 0);
  EXPECT_EQ(none.result.loss_sum, 0);
  EXPECT_EQ(largest(values_of(none.dw)), 0);
}

TEST(HeadLoss, WithoutGradientsOnlyTheLoss) {
  Device device(DeviceKind::cpu, 0, 2);
  Stream stream = Stream::immediate(device);
  const Task in = make_task(device, {20, 6, 50}, Dtype::bf16);
  const auto alone = HeadLoss::forward(stream, {}, in.inputs, {});
  EXPECT_EQ(alone.loss_sum, run(device, {}, in).result.loss_sum);
}

TEST(HeadLoss, CountsCorrectTokensAndKnowsUniformLoss) {
  Device device;
  Stream stream = Stream::immediate(device);
  HeadLoss::Inputs in;
  in.x = make_tensor(device, {2, 2}, Dtype::f32, {1, 0, 0, 0});
  in.weight = make_tensor(device, {3, 2}, Dtype::f32, {5, 0, 1, 0, 2, 0});
  in.labels = make_ids(device, {1, 2});
  auto result = HeadLoss::forward(stream, {}, in, {});
  EXPECT_EQ(result.correct, 1);  // the second row's logits are all equal
  EXPECT_NEAR(result.loss_sum, std::log(std::exp(5) + std::exp(1) + std::exp(2)) - 1 + std::log(3),
              1e-6);
  in.labels = make_ids(device, {0, -1});
  EXPECT_EQ(HeadLoss::forward(stream, {}, in, {}).correct, 1);
}

// Logits of 1e30 * -1e30 are -infinity: impossible tokens, over whole blocks of columns.
// The first of equal logits, in whole vectors and behind them, in several chunks.
TEST(HeadLoss, TellsTheGreedyToken) {
  constexpr int64_t tokens = 70, vocabulary = 45;
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    Device device(DeviceKind::cpu, 0, 2);
    Stream stream = Stream::immediate(device);
    // Logits are the rows of x, exactly.
    std::vector<double> x = random_values(tokens * vocabulary, 8), w(vocabulary * vocabulary, 0.0);
    for (size_t v = 0; v < vocabulary; ++v) w[v * vocabulary + v] = 1;
    std::vector<int32_t> labels, expected;
    for (size_t t = 0; t < tokens; ++t) {
      double* row = x.data() + t * vocabulary;
      const size_t greedy = t * 11 % vocabulary;
      row[greedy] = 50;
      row[(greedy + t) % vocabulary] = 50;  // as large, before or behind
      labels.push_back(t % 7 == 2 ? -1 : 1);
      expected.push_back(labels[t] < 0 ? -1
                                       : static_cast<int32_t>(
                                             std::min(greedy, (greedy + t) % size_t{vocabulary})));
    }
    Tensor greedy, dx;
    HeadLoss::forward(
        stream, {.chunk_bytes = 64 * vocabulary * 4},
        {make_tensor(device, {tokens, vocabulary}, dtype, x),
         make_tensor(device, {vocabulary, vocabulary}, dtype, w), make_ids(device, labels)},
        {.dx = &dx, .greedy = &greedy});
    const std::vector<int32_t> got(greedy.data<int32_t>(), greedy.data<int32_t>() + tokens);
    EXPECT_EQ(got, expected) << name_of(dtype);
  }
}

TEST(HeadLoss, ImpossibleTokensHaveNoShareAndNoGradient) {
  Device device(DeviceKind::cpu, 0, 2);
  const int64_t vocabulary = 3000;
  std::vector<double> weight(static_cast<size_t>(vocabulary), -1e30);
  weight[2500] = 1e-30;
  weight[2501] = 2e-30;
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    Task in;
    in.inputs.x = make_tensor(device, {1, 1}, dtype, {1e30});
    in.inputs.weight = make_tensor(device, {vocabulary, 1}, dtype, weight);
    in.inputs.labels = make_ids(device, {2501});
    const Gradients g = run(device, {}, in);
    EXPECT_NEAR(g.result.loss_sum, std::log(1 + std::exp(-1.0)), 0.01);
    EXPECT_EQ(g.result.first_not_finite, -1);
    const auto dw = values_of(g.dw);
    for (size_t v = 0; v < dw.size(); ++v) {
      ASSERT_EQ(dw[v] != 0, v == 2500 || v == 2501) << v;
    }
  }
}

TEST(HeadLoss, NamesTheFirstTokenThatIsNotFinite) {
  Device device(DeviceKind::cpu, 0, 2);
  Stream stream = Stream::immediate(device);
  for (double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64}) {
      Task in = make_task(device, {12, 6, 40}, dtype);
      auto x = values_of(in.inputs.x);
      x[5 * 6 + 2] = x[9 * 6] = bad;
      in.inputs.x = make_tensor(device, {12, 6}, dtype, x);
      EXPECT_EQ(HeadLoss::forward(stream, {}, in.inputs, {}).first_not_finite, 5);
      EXPECT_EQ(run(device, {}, make_task(device, {12, 6, 40}, dtype)).result.first_not_finite, -1);
    }
  }
}

TEST(HeadLoss, LabelOutsideTheVocabularyIsNamed) {
  Device device;
  Stream stream = Stream::immediate(device);
  Task in = make_task(device, {4, 3, 10}, Dtype::f32);
  for (int32_t bad : {10, -2}) {
    in.labels[2] = bad;
    in.inputs.labels = make_ids(device, in.labels);
    try {
      HeadLoss::forward(stream, {}, in.inputs, {});
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      EXPECT_NE(std::string(error.what()).find("of token 2"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace shoestring
