#include "optim/muon.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"
#include "optim/newton_schulz.h"
#include "tests/optim/support.h"

namespace shoestring {
namespace {

TEST(Muon, PartsAndStacksAreMatricesByThemselves) {
  std::vector<ParamInfo> infos = {info("embedding", {8, 4}, ParamClass::embedding),
                                  info("qkv", {16, 4}), info("experts", {3, 6, 4}),
                                  info("bias", {8}, ParamClass::bias)};
  infos[1].parts = {8, 4, 4};
  infos[2].parts = {2, 4};
  const std::vector<Param> params = make_params(infos);
  const FlatRange all{0, flat_elements(params)};
  const OptimConfig config{.optimizer = "muon"};
  const std::vector<MuonMatrix> matrices = muon_matrices(params, config, {{all}});
  ASSERT_EQ(matrices.size(), 9u);
  const int64_t rows[] = {8, 4, 4, 2, 4, 2, 4, 2, 4};
  int64_t begin = 0;
  for (size_t i = 0; i < 9; ++i) {
    if (i == 3) begin = 0;
    EXPECT_EQ(matrices[i].rows, rows[i]);
    EXPECT_EQ(matrices[i].columns, 4);
    EXPECT_EQ(matrices[i].param, i < 3 ? 1 : 2);
    EXPECT_EQ(matrices[i].begin, begin);
    EXPECT_EQ(matrices[i].flat.begin, params[i < 3 ? 1 : 2].offset + begin);
    begin += matrices[i].elements();
  }
  EXPECT_TRUE(muon_matrices(params, {}, {{all}}).empty());  // AdamW takes everything
}

TEST(Muon, ACutMatrixIsNamed) {
  const std::vector<Param> params = small_model();
  try {
    muon_matrices(params, {.optimizer = "muon"}, {{{0, params[3].offset + 64}}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("of up [120, 93]"), std::string::npos) << e.what();
  }
}

// Experts lie in one parameter: ranks may own whole ones.
TEST(Muon, AParameterMayBeCutBetweenItsMatrices) {
  std::vector<ParamInfo> infos = {info("experts", {48, 8})};
  infos[0].parts = {16, 16, 16};
  const std::vector<Param> params = make_params(infos);
  const OptimConfig config{.optimizer = "muon"};
  const auto first = muon_matrices(params, config, {{{0, 256}}});
  const auto last = muon_matrices(params, config, {{{256, 384}}});
  ASSERT_EQ(first.size(), 2u);
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[0].begin, 256);
  EXPECT_EQ(last[0].flat, (FlatRange{256, 384}));
  EXPECT_THROW(muon_matrices(params, config, {{{0, 192}}}), Error);
}

TEST(Muon, FlopOfTheIterations) {
  std::vector<ParamInfo> infos = {info("qkv", {16, 4})};
  infos[0].parts = {8, 4, 4};
  const MuonConfig config;  // five iterations
  // [8, 4]: two products of 4 x 4 x 8 and one of 4 x 4 x 4, each twice in flop; [4, 4] twice.
  EXPECT_EQ(muon_flop(infos[0], config), 5 * 2 * (2 * 128 + 64 + 2 * (2 * 64 + 64)));
}

TEST(Muon, PartsThatDoNotAddUpAreNamed) {
  std::vector<ParamInfo> infos = {info("qkv", {16, 4})};
  infos[0].parts = {8, 4};
  const std::vector<Param> params = make_params(infos);
  EXPECT_THROW(muon_matrices(params, {.optimizer = "muon"}, {{{0, 64}}}), Error);
}

TEST(Muon, Scales) {
  MuonConfig config;
  EXPECT_DOUBLE_EQ(muon_scale(config, 16, 100), 2);
  EXPECT_DOUBLE_EQ(muon_scale(config, 100, 16), 2);
  config.scale = "keller";
  EXPECT_DOUBLE_EQ(muon_scale(config, 16, 100), 1);
  EXPECT_DOUBLE_EQ(muon_scale(config, 64, 16), 2);
}

// Three steps against the published rule in f64, with the library's orthogonalisation (which has
// its own twin): M = mu M + g, U = g + mu M, p *= 1 - lr wd, p -= lr 0.2 sqrt(max) NS(U).
TEST(Muon, StepsFollowTheRule) {
  constexpr size_t rows = 12, columns = 20, n = rows * columns;
  for (bool nesterov : {true, false}) {
    Device device;
    MuonConfig config;
    config.nesterov = nesterov;
    const MuonMatrix matrix{.rows = rows, .columns = columns, .flat = {0, n}};
    const Tensor momentum = Tensor::zeros(device, {n}, Dtype::f32);
    const RandomStream stream(4, "muon");
    std::vector<float> p(n), g(n);
    for (size_t i = 0; i < n; ++i) p[i] = static_cast<float>(stream.normal(i));
    std::vector<double> twin(p.begin(), p.end()), m(n);
    for (uint64_t t = 1; t <= 3; ++t) {
      for (size_t i = 0; i < n; ++i) g[i] = static_cast<float>(stream.normal(t * n + i));
      update_muon(device, config, matrix, momentum,
                  {.lr = 0.02,
                   .decay = 0.01 * 0.1,
                   .gradient_scale = 0.25,
                   .master = p.data(),
                   .gradient = g.data()});
      std::vector<float> u(n);
      for (size_t i = 0; i < n; ++i) {
        m[i] = 0.95 * m[i] + 0.25 * g[i];
        u[i] = static_cast<float>(nesterov ? 0.25 * g[i] + 0.95 * m[i] : m[i]);
      }
      newton_schulz(device, u, rows, 5, Dtype::f32);
      double squares = 0;
      for (size_t i = 0; i < n; ++i) {
        const double step = 0.2 * std::sqrt(20.0) * u[i];
        squares += step * step;
        twin[i] = twin[i] * (1 - 0.01 * 0.1) - 0.02 * step;
        ASSERT_NEAR(p[i], twin[i], 5e-6) << "step " << t << " element " << i;
      }
      // The root mean square that makes AdamW's learning rate fit.
      EXPECT_NEAR(std::sqrt(squares / n), 0.2, 0.05);
    }
  }
}

}  // namespace
}  // namespace shoestring
