#include "core/ops/rms_norm.h"

#include <cstring>

#include "core/ops/rms_norm_reference.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Problem {
  int64_t rows, width;
  double multiplier;
  bool delta;
};

struct Oracle {
  std::vector<double> h, n, inverse, dx, ddelta, dgain;
};

Oracle oracle(const Problem& p, const std::vector<double>& x, const std::vector<double>& delta,
              const std::vector<double>& gain, const std::vector<double>& dh,
              const std::vector<double>& dn) {
  Oracle o{.h = x,
           .n = x,
           .inverse = std::vector<double>(static_cast<size_t>(p.rows)),
           .dx = x,
           .ddelta = x,
           .dgain = std::vector<double>(gain.size())};
  reference::rms_norm_forward<double>({p.rows, p.width, 1e-5, p.multiplier, x.data(),
                                       p.delta ? delta.data() : nullptr, gain.data(), o.h.data(),
                                       o.n.data(), o.inverse.data()});
  reference::rms_norm_backward<double>({p.rows, p.width, p.multiplier, o.h.data(), o.inverse.data(),
                                        gain.data(), dh.data(), dn.data(), o.dx.data(),
                                        o.ddelta.data(), o.dgain.data()});
  return o;
}

struct Outcome {
  Tensors<2> y, dx;
  Tensor dgain;
};

Outcome run(Device& device, const Problem& p, Dtype dtype) {
  Stream stream = Stream::immediate(device);
  const int64_t n = p.rows * p.width;
  const Shape shape{p.rows, p.width};
  const RmsNorm::Attributes attributes{.eps = 1e-5, .delta_multiplier = p.multiplier};
  Tensor x = make_tensor(device, shape, dtype, random_values(n, 1));
  Tensor delta = p.delta ? make_tensor(device, shape, dtype, random_values(n, 2)) : Tensor();
  Tensor gain = make_tensor(device, {p.width}, dtype, random_values(p.width, 3));
  Tensor dh = make_tensor(device, shape, dtype, random_values(n, 4));
  Tensor dn = make_tensor(device, shape, dtype, random_values(n, 5));
  Outcome result;
  RmsNorm::Saved saved;
  result.y = RmsNorm::forward(stream, attributes, {x, delta}, {gain}, saved);
  result.dgain = Tensor::zeros(device, {p.width}, dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32);
  result.dx = RmsNorm::grad_input(stream, attributes, saved, {gain}, {dh, dn}, {result.dgain});
  return result;
}

// The double reference on the very numbers (rounded to the dtype) that the kernel read.
Oracle oracle_of(Device& device, const Problem& p, Dtype dtype) {
  const int64_t n = p.rows * p.width;
  const auto rounded = [&](int64_t count, uint64_t seed) {
    return values_of(make_tensor(device, {count}, dtype, random_values(count, seed)));
  };
  return oracle(p, rounded(n, 1), rounded(n, 2), rounded(p.width, 3), rounded(n, 4), rounded(n, 5));
}

const std::vector<Problem> problems = {
    {1, 1, 1, true}, {3, 7, 1, true}, {5, 33, 0.3, true}, {70, 128, 1, false}, {130, 257, 1, true}};

TEST(RmsNorm, AgreesWithTheDoubleReferenceInEveryType) {
  Device device(DeviceKind::cpu, 0, 2);
  for (const Problem& p : problems) {
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
      SCOPED_TRACE(::testing::Message() << name_of(dtype) << " " << p.rows << " x " << p.width);
      const Outcome r = run(device, p, dtype);
      const Oracle o = oracle_of(device, p, dtype);
      const double u = roundoff(dtype), inner = dtype == Dtype::f64 ? 0x1p-48 : 0x1p-20;
      // h, h / rms and the product are rounded; a rounded h changes what follows by u of an O(1)
      // number times the gain.
      expect_near(r.y[0], o.h, {1.01, inner}, "h");
      expect_near(r.y[1], o.n, {5, inner}, "n");
      expect_near(r.dx[0], o.dx, {1.01, inner * 16 + (dtype == Dtype::bf16 ? 12 * u : 0)}, "dx");
      if (p.delta) expect_near(r.dx[1], o.ddelta, {2.01, inner * 16 + 12 * u}, "ddelta");
      EXPECT_EQ(p.delta, static_cast<bool>(r.dx[1]));
      const double roots = std::sqrt(static_cast<double>(p.rows));
      expect_near(r.dgain, o.dgain, {4, roots * 16 * u}, "dgain");
    }
  }
}

TEST(RmsNorm, ReferenceGradientsByComplexStep) {
  const Problem p{3, 5, 0.7, true};
  const int64_t n = p.rows * p.width;
  const auto x = random_values(n, 1), delta = random_values(n, 2), gain = random_values(5, 3);
  const auto dh = random_values(n, 4), dn = random_values(n, 5);
  const Oracle o = oracle(p, x, delta, gain, dh, dn);
  const auto loss = [&](const std::vector<Complex>& x_, const std::vector<Complex>& delta_,
                        const std::vector<Complex>& gain_) {
    std::vector<Complex> h(x_.size()), out(x_.size()), inverse(3);
    reference::rms_norm_forward<Complex>({p.rows, p.width, 1e-5, p.multiplier, x_.data(),
                                          delta_.data(), gain_.data(), h.data(), out.data(),
                                          inverse.data()});
    return weighted_sum(h, dh) + weighted_sum(out, dn);
  };
  const auto cx = complex_of(x), cd = complex_of(delta), cg = complex_of(gain);
  expect_complex_step([&](const auto& v) { return loss(v, cd, cg); }, x, o.dx, "dx");
  expect_complex_step([&](const auto& v) { return loss(cx, v, cg); }, delta, o.ddelta, "ddelta");
  expect_complex_step([&](const auto& v) { return loss(cx, cd, v); }, gain, o.dgain, "dgain");
}

TEST(RmsNorm, SameBitsOnAnyNumberOfThreads) {
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    const Problem p{333, 65, 0.5, true};
    Device one(DeviceKind::cpu, 0, 1);
    const Outcome first = run(one, p, dtype);
    for (int threads = 2; threads <= 4; ++threads) {
      Device device(DeviceKind::cpu, 0, threads);
      const Outcome other = run(device, p, dtype);
      for (size_t i : {0, 1}) {
        expect_same_bits(other.y[i], first.y[i], "y");
        expect_same_bits(other.dx[i], first.dx[i], "dx");
      }
      expect_same_bits(other.dgain, first.dgain, "dgain");
    }
  }
}

TEST(RmsNorm, WithoutDeltaThereIsNoCopyAndWithMultiplierOneOneGradient) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor x = make_tensor(device, {2, 8}, Dtype::f32, random_values(16, 1));
  Tensor gain = make_tensor(device, {8}, Dtype::f32, random_values(8, 2));
  Tensor dgain = Tensor::zeros(device, {8}, Dtype::f32);
  RmsNorm::Saved saved;
  auto y = RmsNorm::forward(stream, {}, {x, Tensor()}, {gain}, saved);
  EXPECT_EQ(y[0].raw(), x.raw());
  y = RmsNorm::forward(stream, {}, {x, x}, {gain}, saved);
  const auto dx = RmsNorm::grad_input(stream, {}, saved, {gain}, {x, x}, {dgain});
  EXPECT_EQ(dx[0].raw(), dx[1].raw());
}

TEST(RmsNorm, EmptyGradients) {
  Device device;
  Stream stream = Stream::immediate(device);
  const auto values = random_values(24, 1);
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    Tensor x = make_tensor(device, {3, 8}, dtype, values);
    Tensor gain = make_tensor(device, {8}, dtype, random_values(8, 2));
    Tensor dgain = Tensor::zeros(device, {8}, Dtype::f32);
    Tensor zero = Tensor::zeros(device, {3, 8}, dtype);
    RmsNorm::Saved saved;
    const RmsNorm::Attributes attributes{.eps = 1e-5, .delta_multiplier = 0.5};
    RmsNorm::forward(stream, attributes, {x, x}, {gain}, saved);
    // Nothing used: no gradients. Only h used: dh passes through, halved for delta.
    auto dx = RmsNorm::grad_input(stream, attributes, saved, {gain}, {Tensor(), Tensor()}, {dgain});
    EXPECT_FALSE(dx[0] || dx[1]);
    dx = RmsNorm::grad_input(stream, attributes, saved, {gain}, {x, Tensor()}, {dgain});
    EXPECT_EQ(dx[0].raw(), x.raw());
    std::vector<double> half = values_of(x);
    for (double& v : half) v /= 2;
    EXPECT_EQ(values_of(dx[1]), half);
    EXPECT_EQ(values_of(dgain), std::vector<double>(8, 0.0));
    // Only n used: as if dh were zero.
    dx = RmsNorm::grad_input(stream, attributes, saved, {gain}, {Tensor(), x}, {dgain});
    const auto with_zero =
        RmsNorm::grad_input(stream, attributes, saved, {gain}, {zero, x}, {dgain});
    EXPECT_EQ(values_of(dx[0]), values_of(with_zero[0]));
  }
}

TEST(RmsNorm, GainGradientIsAddedToWhatIsThere) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor x = make_tensor(device, {3, 8}, Dtype::f32, random_values(24, 1));
  Tensor gain = make_tensor(device, {8}, Dtype::f32, random_values(8, 2));
  Tensor once = Tensor::zeros(device, {8}, Dtype::f32);
  RmsNorm::Saved saved;
  RmsNorm::forward(stream, {}, {x, Tensor()}, {gain}, saved);
  RmsNorm::grad_input(stream, {}, saved, {gain}, {Tensor(), x}, {once});
  Tensor twice = make_tensor(device, {8}, Dtype::f32, values_of(once));
  RmsNorm::grad_input(stream, {}, saved, {gain}, {Tensor(), x}, {twice});
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(twice.data<float>()[i], 2 * once.data<float>()[i]);
}

// By hand: x = (3, 4), mean of squares 12.5, rounded as the published bf16 models round.
TEST(RmsNorm, RoundsBf16LikeThePublishedModels) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor x = make_tensor(device, {1, 2}, Dtype::bf16, {3, 4});
  Tensor gain = make_tensor(device, {2}, Dtype::bf16, {1.0078125, 3});
  RmsNorm::Saved saved;
  const auto y = RmsNorm::forward(stream, {.eps = 0}, {x, Tensor()}, {gain}, saved);
  for (size_t i : {0u, 1u}) {
    const float unit = static_cast<float>(BFloat16((i == 0 ? 3.0f : 4.0f) / std::sqrt(12.5f)));
    const float scaled = unit * static_cast<float>(gain.data<BFloat16>()[i]);
    EXPECT_EQ(y[1].data<BFloat16>()[i].bits, BFloat16(scaled).bits);
  }
}

TEST(RmsNorm, WrongShapesAreNamed) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor x = Tensor::zeros(device, {3, 8}, Dtype::f32);
  Tensor gain = Tensor::zeros(device, {7}, Dtype::f32);
  RmsNorm::Saved saved;
  try {
    RmsNorm::forward(stream, {}, {x, Tensor()}, {gain}, saved);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("[rms_norm] gain"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
