#include "optim/adamw.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <vector>

#include "core/random.h"

namespace shoestring {
namespace {

const AdamwSettings vector_settings = {
    .step_size = 0.01, .decay = 0.001, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8};

// Worked by hand and in f64: p0 = 1, lr 0.01, weight decay 0.1.
const double vector_g[3] = {0.5, -0.25, 0.1};
const double vector_p[3] = {0.989000000200, 0.985327305787, 0.981129127774};
const double vector_m[3] = {0.05, 0.02, 0.028};
const double vector_v[3] = {0.0125, 0.015, 0.01475};

TEST(Adamw, TwinMatchesTheKnownVector) {
  double p = 1, m = 0, v = 0;
  for (int t = 0; t < 3; ++t) {
    adamw_element(adamw_coefficients<double>(vector_settings, t + 1), vector_g[t], p, m, v);
    EXPECT_NEAR(p, vector_p[t], 1e-12);
    EXPECT_NEAR(m, vector_m[t], 1e-15);
    EXPECT_NEAR(v, vector_v[t], 1e-15);
  }
}

TEST(Adamw, KernelMatchesTheKnownVector) {
  std::vector<float> p(37, 1), m(37), v(37), g(37);
  for (int t = 0; t < 3; ++t) {
    g.assign(37, static_cast<float>(vector_g[t]));
    const auto c = adamw_coefficients<float>(vector_settings, t + 1);
    adamw_run(
        {.elements = 37, .master = p.data(), .gradient = g.data(), .m = m.data(), .v = v.data()},
        c);
    for (float x : p) EXPECT_NEAR(x, vector_p[t], 1e-7);
    for (float x : v) EXPECT_NEAR(x, vector_v[t], 2e-9);
  }
}

struct Arrays {
  std::vector<float> p, g;
  std::vector<BFloat16> copy, m16, v16;
  std::vector<float> m, v;
  explicit Arrays(size_t n) : p(n), g(n), copy(n), m16(n), v16(n), m(n), v(n) {
    const RandomStream stream(5, "arrays");
    for (size_t i = 0; i < n; ++i) {
      p[i] = static_cast<float>(stream.normal(2 * i));
      g[i] =
          static_cast<float>(stream.normal(2 * i + 1) * std::pow(10, static_cast<int>(i % 9) - 5));
    }
  }
  AdamwRun run(Dtype moments, bool stochastic, int64_t begin, int64_t end, uint64_t seed = 7) {
    const size_t b = static_cast<size_t>(begin);
    AdamwRun r{.elements = end - begin,
               .master = p.data() + b,
               .gradient = g.data() + b,
               .copy = copy.data() + b,
               .m = moments == Dtype::f32 ? static_cast<void*>(m.data() + b) : m16.data() + b,
               .v = moments == Dtype::f32 ? static_cast<void*>(v.data() + b) : v16.data() + b,
               .moments = moments,
               .stochastic = stochastic,
               .first = static_cast<uint32_t>(begin)};
    r.keys = rounding_keys(seed, "w", 3, 0);
    return r;
  }
};

// Runs of one element take the scalar path, a long run the vectors: bit for bit the same.
TEST(Adamw, VectorsEqualTheScalarTwin) {
  constexpr int64_t n = 1003;
  for (Dtype moments : {Dtype::f32, Dtype::bf16}) {
    for (bool stochastic : {false, true}) {
      Arrays whole(n), single(n);
      for (int t = 1; t <= 4; ++t) {
        const auto c = adamw_coefficients<float>(vector_settings, t);
        adamw_run(whole.run(moments, stochastic, 0, n), c);
        for (int64_t i = 0; i < n; ++i) adamw_run(single.run(moments, stochastic, i, i + 1), c);
      }
      for (size_t i = 0; i < n; ++i) {
        ASSERT_EQ(whole.p[i], single.p[i]) << i;
        ASSERT_EQ(whole.m[i], single.m[i]) << i;
        ASSERT_EQ(whole.v[i], single.v[i]) << i;
        ASSERT_EQ(whole.m16[i].bits, single.m16[i].bits) << i;
        ASSERT_EQ(whole.v16[i].bits, single.v16[i].bits) << i;
        ASSERT_EQ(whole.copy[i].bits, single.copy[i].bits) << i;
      }
    }
  }
}

TEST(Adamw, SpecialValuesRoundAsInTheScalarTwin) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::bit_cast<float>(0x7f800001u);  // a payload that truncation would lose
  for (bool stochastic : {false, true}) {
    Arrays whole(64), single(64);
    for (Arrays* a : {&whole, &single}) {
      a->p[3] = inf;
      a->p[21] = nan;
      a->g[30] = nan;
      a->g[31] = inf;
      a->p[40] = std::numeric_limits<float>::max();
      a->p[41] = -0.0f;
    }
    const auto c = adamw_coefficients<float>({.step_size = 0, .decay = 0}, 1);
    adamw_run(whole.run(Dtype::bf16, stochastic, 0, 64), c);
    for (int64_t i = 0; i < 64; ++i) adamw_run(single.run(Dtype::bf16, stochastic, i, i + 1), c);
    for (size_t i = 0; i < 64; ++i) {
      EXPECT_EQ(std::isnan(static_cast<float>(whole.copy[i])),
                std::isnan(static_cast<float>(single.copy[i])));
      if (!std::isnan(whole.p[i])) {
        EXPECT_EQ(whole.copy[i].bits, single.copy[i].bits) << i;
      }
      if (!std::isnan(whole.g[i])) {
        EXPECT_EQ(whole.m16[i].bits, single.m16[i].bits) << i;
      }
    }
    EXPECT_EQ(static_cast<float>(whole.m16[31]), inf);
    EXPECT_TRUE(std::isnan(static_cast<float>(whole.copy[3])));  // inf - 0 * inf
    EXPECT_TRUE(std::isnan(static_cast<float>(whole.copy[21])));
  }
}

TEST(Adamw, CopyRunRepeatsTheCopies) {
  Arrays a(500);
  adamw_run(a.run(Dtype::f32, true, 0, 500), adamw_coefficients<float>(vector_settings, 1));
  const std::vector<BFloat16> before = a.copy;
  a.copy.assign(500, BFloat16(0.0f));
  copy_run(a.run(Dtype::f32, true, 0, 500));
  for (size_t i = 0; i < 500; ++i) ASSERT_EQ(a.copy[i].bits, before[i].bits);
}

// x = 1.003 lies between 1 and 1.0078125, 0.384003 of the way up.
TEST(Adamw, StochasticRoundingIsUnbiasedAndReplays) {
  constexpr size_t n = 200000;
  Arrays a(n);
  a.p.assign(n, 1.003f);
  const auto frozen = adamw_coefficients<float>({.step_size = 0, .decay = 0}, 1);
  adamw_run(a.run(Dtype::f32, true, 0, n), frozen);
  double sum = 0, neighbours = 0;
  for (size_t i = 0; i < n; ++i) {
    const float x = static_cast<float>(a.copy[i]);
    EXPECT_TRUE(x == 1.0f || x == 1.0078125f);
    sum += x;
    if (i > 0) neighbours += (x > 1) == (static_cast<float>(a.copy[i - 1]) > 1);
  }
  const double up = 0.384003;
  const double deviation = 0.0078125 * std::sqrt(up * (1 - up) / n);
  EXPECT_NEAR(sum / n, 1.003f, 4 * deviation);
  const double agree = up * up + (1 - up) * (1 - up);  // of independent neighbours
  EXPECT_NEAR(neighbours / n, agree, 4 * std::sqrt(agree * (1 - agree) / n));

  Arrays again(n), other(n);
  again.p.assign(n, 1.003f);
  other.p.assign(n, 1.003f);
  adamw_run(again.run(Dtype::f32, true, 0, n), frozen);
  adamw_run(other.run(Dtype::f32, true, 0, n, 8), frozen);
  int64_t differing = 0;
  for (size_t i = 0; i < n; ++i) {
    ASSERT_EQ(a.copy[i].bits, again.copy[i].bits);
    differing += a.copy[i].bits != other.copy[i].bits;
  }
  EXPECT_NEAR(static_cast<double>(differing) / n, 2 * up * (1 - up), 0.01);
}

// Both moments lie in the middle between two bf16 values: each goes up half of the time, whatever
// the other does.
TEST(Adamw, MomentsRoundIndependentlyOfOneAnother) {
  constexpr size_t n = 100000;
  Arrays a(n);
  const float middle = 1 + 0x1p-8f;
  a.g.assign(n, middle);
  AdamwCoefficients<float> keep;
  keep.rest1 = 1;           // m = g
  keep.rest2 = 1 / middle;  // v = g g / g
  adamw_run(a.run(Dtype::bf16, true, 0, n), keep);
  int64_t m_up = 0, v_up = 0, same = 0;
  for (size_t i = 0; i < n; ++i) {
    const bool m = static_cast<float>(a.m16[i]) > 1, v = static_cast<float>(a.v16[i]) > 1;
    m_up += m;
    v_up += v;
    same += m == v;
  }
  const double deviation = 0.5 / std::sqrt(static_cast<double>(n));
  for (int64_t count : {m_up, v_up, same}) {
    EXPECT_NEAR(static_cast<double>(count) / n, 0.5, 5 * deviation);
  }
}

TEST(Adamw, RoundingKeysDependOnEverything) {
  const RoundingKeys base = rounding_keys(1, "a", 1, 0);
  EXPECT_NE(base.word[0], rounding_keys(2, "a", 1, 0).word[0]);
  EXPECT_NE(base.word[0], rounding_keys(1, "b", 1, 0).word[0]);
  EXPECT_NE(base.word[0], rounding_keys(1, "a", 2, 0).word[0]);
  EXPECT_NE(base.word[0], rounding_keys(1, "a", 1, 1).word[0]);
}

// Against f64 with an error model: each step adds at most one rounding of p and a few of the
// update, whose size is at most lr * |u|; errors of m and v decay with the betas.
TEST(Adamw, ManyStepsStayNearTheDoubleTwin) {
  constexpr size_t n = 256;
  constexpr int steps = 300;
  constexpr double epsilon32 = 0x1p-24;
  Arrays a(n);
  std::vector<double> p(a.p.begin(), a.p.end()), m(n), v(n), bound(n);
  const RandomStream stream(3, "gradients");
  for (int t = 1; t <= steps; ++t) {
    AdamwSettings settings = vector_settings;
    settings.gradient_scale = 0.5;
    for (size_t i = 0; i < n; ++i) {
      a.g[i] = static_cast<float>(stream.normal(static_cast<uint64_t>(t) * n + i));
    }
    adamw_run(a.run(Dtype::f32, false, 0, n), adamw_coefficients<float>(settings, t));
    const auto c = adamw_coefficients<double>(settings, t);
    for (size_t i = 0; i < n; ++i) {
      adamw_element(c, static_cast<double>(a.g[i]), p[i], m[i], v[i]);
      bound[i] += epsilon32 * (std::abs(p[i]) + settings.step_size * 100);
      ASSERT_NEAR(a.p[i], p[i], bound[i]) << "step " << t << " element " << i;
    }
  }
}

TEST(Adamw, Bf16MomentsStayNearF32Moments) {
  constexpr size_t n = 512;
  for (bool stochastic : {false, true}) {
    Arrays wide(n), narrow(n);
    const RandomStream stream(4, "gradients");
    double worst = 0;
    for (int t = 1; t <= 50; ++t) {
      for (size_t i = 0; i < n; ++i) {
        wide.g[i] = static_cast<float>(stream.normal(static_cast<uint64_t>(t) * n + i));
      }
      narrow.g = wide.g;
      const auto c = adamw_coefficients<float>(vector_settings, t);
      adamw_run(wide.run(Dtype::f32, false, 0, n), c);
      auto run = narrow.run(Dtype::bf16, stochastic, 0, n);
      run.keys = rounding_keys(7, "w", t, 0);
      adamw_run(run, c);
    }
    for (size_t i = 0; i < n; ++i) {
      // A stored moment carries at most 1/(1 - beta) relative roundings, each below 2^-8 of the
      // running value; for v: 20 * 2^-8 in the worst case, half a rounding at a time for nearest.
      worst = std::max<double>(worst, std::abs(wide.p[i] - narrow.p[i]));
      EXPECT_NEAR(static_cast<float>(narrow.v16[i]), wide.v[i], wide.v[i] * 20 * 0x1p-8);
    }
    EXPECT_LT(worst, 50 * 0.01 * 0.05);  // 5 % of the distance 50 steps of lr can go
    EXPECT_GT(worst, 0);
  }
}

// A second moment that shrinks by less than half a bf16 unit a step: nearest rounding never moves
// it, stochastic rounding follows in expectation.
TEST(Adamw, StochasticRoundingFollowsSlowMoments) {
  constexpr size_t n = 4096;
  AdamwSettings settings = vector_settings;
  settings.beta2 = 0.999;
  Arrays nearest(n), stochastic(n);
  for (Arrays* a : {&nearest, &stochastic}) {
    a->g.assign(n, 0);
    a->v16.assign(n, BFloat16(1.0f));
  }
  for (int t = 1; t <= 300; ++t) {
    const auto c = adamw_coefficients<float>(settings, t);
    adamw_run(nearest.run(Dtype::bf16, false, 0, n), c);
    auto run = stochastic.run(Dtype::bf16, true, 0, n);
    run.keys = rounding_keys(7, "w", t, 0);
    adamw_run(run, c);
  }
  double mean = 0;
  for (size_t i = 0; i < n; ++i) {
    EXPECT_EQ(static_cast<float>(nearest.v16[i]), 1.0f);
    mean += static_cast<float>(stochastic.v16[i]) / n;
  }
  EXPECT_NEAR(mean, std::pow(0.999, 300), 0.01);
}

TEST(Adamw, TwentyStepsEqualTorch) {
  std::ifstream file(SHOESTRING_SOURCE_DIR "/tests/data/optim_adamw.txt");
  ASSERT_TRUE(file.good());
  double lr, beta1, beta2, epsilon, decay;
  int steps;
  size_t n;
  file >> lr >> beta1 >> beta2 >> epsilon >> decay >> steps >> n;
  std::vector<double> p(n), m(n), v(n);
  for (double& x : p) file >> x;
  Arrays a(n);
  a.p.assign(p.begin(), p.end());
  const AdamwSettings settings{
      .step_size = lr, .decay = lr * decay, .beta1 = beta1, .beta2 = beta2, .epsilon = epsilon};
  for (int t = 1; t <= steps; ++t) {
    std::vector<double> g(n), want(n);
    for (double& x : g) file >> x;
    for (double& x : want) file >> x;
    ASSERT_TRUE(file.good());
    a.g.assign(g.begin(), g.end());
    adamw_run(a.run(Dtype::f32, false, 0, static_cast<int64_t>(n)),
              adamw_coefficients<float>(settings, t));
    const auto c = adamw_coefficients<double>(settings, t);
    for (size_t i = 0; i < n; ++i) {
      adamw_element(c, g[i], p[i], m[i], v[i]);
      EXPECT_NEAR(p[i], want[i], 1e-14) << "step " << t << " element " << i;
      EXPECT_NEAR(a.p[i], want[i], 2e-6) << "step " << t << " element " << i;
    }
  }
}

}  // namespace
}  // namespace shoestring
