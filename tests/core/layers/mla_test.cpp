#include "core/layers/mla.h"

#include <cmath>
#include <complex>

#include "core/ops/rope.h"
#include "tests/core/layers/layer_harness.h"

namespace shoestring {
namespace {

constexpr int64_t d = 10, n = 3, c = 4, r = 6, w = 5, d_c = 7, d_q = 8, rows = 9;
constexpr double scale = 0.4;

std::vector<ParamInfo> infos(bool compressed) {
  std::vector<ParamInfo> list = {{.name = "q", .shape = {n * (c + r), compressed ? d_q : d}},
                                 {.name = "kv_down", .shape = {d_c + r, d}},
                                 {.name = "kv_gain", .shape = {d_c}},
                                 {.name = "kv_up", .shape = {n * (c + w), d_c}},
                                 {.name = "o", .shape = {d, n * w}}};
  if (compressed) {
    list.push_back({.name = "q_down", .shape = {d_q, d}});
    list.push_back({.name = "q_gain", .shape = {d_q}});
  }
  for (ParamInfo& info : list) info.deviation = 0.6;
  return list;
}

struct Subject {
  explicit Subject(bool compressed)
      : harness(infos(compressed), rows),
        table(make_rope_table(harness.device(), {}, r, 16)),
        x(harness.values({rows, d}, "x")) {
    layer.shape = {.q_heads = n,
                   .kv_heads = n,
                   .head_dim = c + r,
                   .v_head_dim = w,
                   .scale = scale,
                   .layer = 2};
    layer.nope = c;
    layer.rope = r;
    layer.q.weight = harness.param("q");
    layer.kv_down.weight = harness.param("kv_down");
    layer.kv_gain = harness.param("kv_gain");
    layer.kv_up.weight = harness.param("kv_up");
    layer.output.weight = harness.param("o");
    if (!compressed) return;
    layer.q_down.weight = harness.param("q_down");
    layer.q_gain = harness.param("q_gain");
  }
  Tensor run(Tape& tape, const Value& input, AttentionCore* core = nullptr) {
    LayerContext context{.tape = tape, .batch = harness.batch(), .rope = &table, .attention = core};
    return layer.run(context, input).tensor();
  }
  LayerHarness harness;
  RopeTable table;
  Tensor x;
  MlaLayer layer;
};

using Matrix = std::vector<std::vector<double>>;

// x w^T
Matrix product(const Matrix& x, const double* weight, int64_t out) {
  Matrix y;
  for (const auto& row : x) {
    const auto in = static_cast<int64_t>(row.size());
    y.emplace_back(static_cast<size_t>(out), 0.0);
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t i = 0; i < in; ++i) {
        y.back()[static_cast<size_t>(o)] += row[static_cast<size_t>(i)] * weight[o * in + i];
      }
    }
  }
  return y;
}

Matrix normalised(const Matrix& x, const double* gain, size_t width) {
  Matrix y;
  for (const auto& row : x) {
    double square = 0;
    for (size_t i = 0; i < width; ++i) square += row[i] * row[i];
    const double inverse = 1 / std::sqrt(square / static_cast<double>(width) + 1e-6);
    y.emplace_back();
    for (size_t i = 0; i < width; ++i) y.back().push_back(row[i] * inverse * gain[i]);
  }
  return y;
}

// Pairs (2 j, 2 j + 1) as complex numbers times exp(i t theta^(-2 j / r)).
std::vector<double> turned(const double* x, int64_t t) {
  std::vector<double> y;
  for (int64_t j = 0; j < r / 2; ++j) {
    const double angle =
        static_cast<double>(t) * std::pow(10000.0, -2.0 * static_cast<double>(j) / r);
    const auto z = std::complex<double>(x[2 * j], x[2 * j + 1]) * std::polar(1.0, angle);
    y.push_back(z.real());
    y.push_back(z.imag());
  }
  return y;
}

// The equations of the report, one head and one token at a time.
Matrix by_the_report(Subject& s, bool compressed) {
  LayerHarness& h = s.harness;
  Matrix x;
  for (int64_t t = 0; t < rows; ++t) {
    const double* row = s.x.data<double>() + t * d;
    x.emplace_back(row, row + d);
  }
  const Matrix source =
      compressed ? normalised(product(x, h.weight("q_down"), d_q), h.weight("q_gain"), d_q) : x;
  const Matrix q = product(source, h.weight("q"), n * (c + r));
  const Matrix down = product(x, h.weight("kv_down"), d_c + r);
  const Matrix up =
      product(normalised(down, h.weight("kv_gain"), d_c), h.weight("kv_up"), n * (c + w));
  Matrix o;
  for (int64_t t = 0; t < rows; ++t) {
    o.emplace_back();
    const auto& qt = q[static_cast<size_t>(t)];
    for (int64_t i = 0; i < n; ++i) {
      const double* own = qt.data() + i * (c + r);
      const auto q_turned = turned(own + c, t);
      std::vector<double> p;
      double sum = 0;
      for (int64_t u = 0; u <= t; ++u) {
        const double* key = up[static_cast<size_t>(u)].data() + i * (c + w);
        const auto k_turned = turned(down[static_cast<size_t>(u)].data() + d_c, u);
        double dot = 0;
        for (int64_t j = 0; j < c; ++j) dot += own[j] * key[j];
        for (size_t j = 0; j < r; ++j) dot += q_turned[j] * k_turned[j];
        sum += p.emplace_back(std::exp(scale * dot));
      }
      for (int64_t j = 0; j < w; ++j) {
        double value = 0;
        for (size_t u = 0; u < p.size(); ++u) {
          value += p[u] / sum * up[u][static_cast<size_t>(i * (c + w) + c + j)];
        }
        o.back().push_back(value);
      }
    }
  }
  return product(o, h.weight("o"), d);
}

TEST(MlaLayer, IsTheReportsEquationsWithAndWithoutAQueryLatent) {
  for (bool compressed : {false, true}) {
    Subject s(compressed);
    Tape tape = s.harness.tape();
    const Tensor y = s.run(tape, tape.leaf(s.x, true));
    const Matrix want = by_the_report(s, compressed);
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t i = 0; i < d; ++i) {
        // cos and sin are f32.
        EXPECT_NEAR(y.data<double>()[t * d + i],
                    want[static_cast<size_t>(t)][static_cast<size_t>(i)], 1e-6)
            << compressed << " " << t;
      }
    }
  }
}

// The gradient of the layer's input and of every weight against central differences.
TEST(MlaLayer, GradientsEqualCentralDifferences) {
  for (bool compressed : {false, true}) {
    Subject s(compressed);
    const Tensor dy = s.harness.values({rows, d}, "dy");
    const auto loss = [&] {
      Tape tape = s.harness.tape(Tape::Mode::inference);
      const Tensor y = s.run(tape, Value(s.x));
      double sum = 0;
      for (int64_t i = 0; i < y.elements(); ++i) sum += y.data<double>()[i] * dy.data<double>()[i];
      return sum;
    };
    s.harness.store().zero_gradients();
    Tape tape = s.harness.tape();
    const Value input = tape.leaf(s.x, true);
    LayerContext context{.tape = tape, .batch = s.harness.batch(), .rope = &s.table};
    tape.seed(s.layer.run(context, input), dy);
    tape.backward();
    const auto expect_gradient = [&](const Tensor& at, const Tensor& gradient,
                                     std::string_view name) {
      for (int64_t i = 0; i < at.elements(); ++i) {
        double& value = at.data<double>()[i];
        const double before = value, step = 1e-5;
        value = before + step;
        const double above = loss();
        value = before - step;
        const double below = loss();
        value = before;
        EXPECT_NEAR(gradient.data<double>()[i], (above - below) / (2 * step), 1e-7)
            << name << "[" << i << "]";
      }
    };
    expect_gradient(s.x, tape.take_gradient(input), "x");
    for (const Param& p : s.harness.store().params()) {
      expect_gradient(s.harness.store().weight(p), s.harness.store().gradient(p), p.info.name);
    }
  }
}

// Takes the latent, or declines it and sees keys and values instead.
class NotingCore : public AttentionCore {
 public:
  explicit NotingCore(bool takes) : takes_(takes) {}
  Value run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
            const Tensor&) override {
    k_shape = k.tensor().shape();
    v_shape = v.tensor().shape();
    return answer(tape, shape, q);
  }
  Value run_latent(Tape& tape, const LatentAttention& a) override {
    seen = a.shape;
    latent_shape = a.latent.tensor().shape();
    key_shape = a.key.tensor().shape();
    up_shape = a.up.shape();
    return takes_ ? answer(tape, a.shape, a.q) : Value();
  }
  AttentionShape seen;
  Shape latent_shape, key_shape, up_shape, k_shape, v_shape;

 private:
  static Value answer(Tape& tape, const AttentionShape& s, const Value& q) {
    return Value(Tensor::zeros(tape.stream().device(),
                               {q.tensor().rows(), s.q_heads * s.v_head_dim}, Dtype::f64));
  }
  bool takes_;
};

TEST(MlaLayer, OffersTheSeamItsLatentBeforeKeysAndValues) {
  for (bool takes : {false, true}) {
    Subject s(true);
    Tape tape = s.harness.tape(Tape::Mode::inference);
    NotingCore core(takes);
    s.run(tape, Value(s.x), &core);
    EXPECT_EQ(core.seen.layer, 2);
    EXPECT_EQ(core.seen.q_heads, n);
    EXPECT_EQ(core.seen.length, rows);
    EXPECT_EQ(core.latent_shape, (Shape{rows, d_c}));
    EXPECT_EQ(core.key_shape, (Shape{rows, r}));
    EXPECT_EQ(core.up_shape, (Shape{n * (c + w), d_c}));
    EXPECT_EQ(core.k_shape, takes ? Shape() : (Shape{rows, n * (c + r)}));
    EXPECT_EQ(core.v_shape, takes ? Shape() : (Shape{rows, n * w}));
  }
}

}  // namespace
}  // namespace shoestring
