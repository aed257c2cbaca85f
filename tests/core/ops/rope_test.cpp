#include "core/ops/rope.h"

#include <cstring>
#include <numbers>

#include "core/ops/rope_reference.h"
#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

RopeConfig llama31() {
  RopeConfig c;
  c.theta = 5e5;
  c.scaling = "llama3";
  c.factor = 8;
  return c;
}

TEST(RopeFrequencies, PlainAndLinear) {
  RopeConfig c;
  c.theta = 100;
  auto w = rope_frequencies(c, 4);
  ASSERT_EQ(w.size(), 2u);
  EXPECT_DOUBLE_EQ(w[0], 1);
  EXPECT_DOUBLE_EQ(w[1], 0.1);
  c.scaling = "linear";
  c.factor = 4;
  w = rope_frequencies(c, 4);
  EXPECT_DOUBLE_EQ(w[0], 0.25);
  EXPECT_DOUBLE_EQ(w[1], 0.025);
  EXPECT_EQ(rope_amplitude(c), 1);
}

// Published values of Llama 3.1 (factor 8, 128 dims) and Llama 3.2 (factor 32, 64 dims).
TEST(RopeFrequencies, Llama3KeepsBlendsAndStretches) {
  RopeConfig c = llama31();
  const auto scaled = rope_frequencies(c, 128);
  RopeConfig plain = c;
  plain.scaling = "none";
  const auto w = rope_frequencies(plain, 128);
  EXPECT_NEAR(w[29], 2.616099253e-3, 1e-12);
  for (size_t i = 0; i <= 28; ++i) EXPECT_EQ(scaled[i], w[i]) << i;
  for (size_t i = 29; i <= 34; ++i) {
    EXPECT_LT(scaled[i], w[i]) << i;
    EXPECT_GT(scaled[i], w[i] / 8) << i;
  }
  for (size_t i = 35; i < 64; ++i) EXPECT_DOUBLE_EQ(scaled[i], w[i] / 8) << i;
  EXPECT_NEAR(scaled[29], 2.166570764e-3, 1e-12);
  EXPECT_NEAR(scaled[34], 1.785078128e-4, 1e-13);
  EXPECT_NEAR(scaled[63], 3.068925989e-7, 1e-16);
  c.factor = 32;
  const auto small = rope_frequencies(c, 64);
  EXPECT_NEAR(small[15], 1.290547928e-3, 1e-12);
  EXPECT_NEAR(small[17], 9.708287803e-5, 1e-14);
}

// DeepSeek-V3's numbers: 64 dims, original length 4096; corner dims 10 and 23.
TEST(RopeFrequencies, YarnBlendsBetweenItsCorners) {
  RopeConfig c;
  c.scaling = "yarn";
  c.factor = 40;
  c.original_max_positions = 4096;
  const auto scaled = rope_frequencies(c, 64);
  RopeConfig plain;
  const auto w = rope_frequencies(plain, 64);
  for (size_t i = 0; i <= 10; ++i) EXPECT_DOUBLE_EQ(scaled[i], w[i]) << i;
  for (size_t i = 23; i < 32; ++i) EXPECT_DOUBLE_EQ(scaled[i], w[i] / 40) << i;
  const double ramp = 5.0 / 13.0;
  EXPECT_DOUBLE_EQ(scaled[15], w[15] / 40 * ramp + w[15] * (1 - ramp));
  EXPECT_NEAR(rope_amplitude(c), 0.1 * std::log(40.0) + 1, 1e-15);
  c.mscale = c.mscale_all_dim = 1;
  EXPECT_DOUBLE_EQ(rope_amplitude(c), 1);
  c.mscale = 0.5;
  EXPECT_DOUBLE_EQ(rope_amplitude(c), (0.05 * std::log(40.0) + 1) / (0.1 * std::log(40.0) + 1));
  c.attention_factor = 1.25;
  EXPECT_EQ(rope_amplitude(c), 1.25);
}

TEST(RopeTable, HoldsCosineAndSineOfEachAngleTimesTheAmplitude) {
  Device device(DeviceKind::cpu, 0, 3);
  RopeConfig c;
  c.scaling = "yarn";
  c.factor = 4;
  c.attention_factor = 1.5;
  const auto w = rope_frequencies(c, 6);
  const RopeTable table = make_rope_table(device, c, 6, 3000);
  ASSERT_EQ(table.cos.shape(), Shape({3000, 3}));
  for (int64_t t : {0, 1, 777, 2999}) {
    for (size_t j = 0; j < 3; ++j) {
      const auto at = static_cast<size_t>(t) * 3 + j;
      const double angle = static_cast<double>(t) * w[j];
      EXPECT_EQ(table.cos.data<float>()[at], static_cast<float>(1.5 * std::cos(angle)));
      EXPECT_EQ(table.sin.data<float>()[at], static_cast<float>(1.5 * std::sin(angle)));
    }
  }
  EXPECT_THROW(make_rope_table(device, c, 5, 10), Error);
}

TEST(RopeConfig, ContradictionsAreComplainedAbout) {
  Complaints complaints;
  llama31().validate(complaints);
  RopeConfig().validate(complaints);
  EXPECT_TRUE(complaints.items().empty());
  RopeConfig bad = llama31();
  bad.low_freq_factor = 4;
  bad.validate(complaints);
  bad.scaling = "yarn";
  bad.beta_slow = 64;
  bad.validate(complaints);
  RopeConfig idle;
  idle.factor = 4;  // of no scaling
  idle.validate(complaints);
  ASSERT_EQ(complaints.items().size(), 3u);
  EXPECT_EQ(complaints.items()[0].key, "high_freq_factor");
  EXPECT_EQ(complaints.items()[1].key, "beta_fast");
  EXPECT_EQ(complaints.items()[2].key, "factor");
}

struct Case {
  int64_t tokens, heads, head_dim, rotated, first;
};
const std::vector<Case> cases = {
    {1, 1, 2, 2, 0}, {5, 3, 10, 10, 0}, {70, 4, 64, 64, 0}, {33, 2, 40, 14, 26}, {9, 2, 66, 34, 3}};

struct Outcome {
  Tensor x, dy, y, dx;
  std::vector<int32_t> positions;
  Rope::Attributes attributes;
};

Outcome run(Device& device, const Case& c, Dtype dtype, bool interleaved) {
  Stream stream = Stream::immediate(device);
  Outcome o;
  const int64_t width = c.heads * c.head_dim;
  for (int64_t t = 0; t < c.tokens; ++t) o.positions.push_back(static_cast<int32_t>(t * 7 % 31));
  o.attributes = {.table = make_rope_table(device, llama31(), c.rotated, 32),
                  .heads = c.heads,
                  .head_dim = c.head_dim,
                  .rotated = c.rotated,
                  .first = c.first,
                  .interleaved = interleaved};
  o.x = make_tensor(device, {c.tokens, width}, dtype, random_values(c.tokens * width, 1));
  o.dy = make_tensor(device, {c.tokens, width}, dtype, random_values(c.tokens * width, 2));
  Rope::Saved saved;
  o.y = Rope::forward(stream, o.attributes, {o.x, make_ids(device, o.positions)}, saved)[0];
  o.dx = Rope::grad_input(stream, o.attributes, saved, {o.dy})[0];
  return o;
}

template <class S>
std::vector<S> reference_rows(const Outcome& o, const std::vector<S>& x, double direction) {
  const Rope::Attributes& a = o.attributes;
  std::vector<S> y(x.size());
  for (size_t t = 0; t < o.positions.size(); ++t) {
    for (int64_t h = 0; h < a.heads; ++h) {
      const auto at = static_cast<int64_t>(t) * a.heads * a.head_dim + h * a.head_dim;
      reference::rotate_head<S>(
          {a.head_dim, a.rotated, a.first, a.interleaved, direction, x.data() + at,
           a.table.cos.data<float>() + o.positions[t] * (a.rotated / 2),
           a.table.sin.data<float>() + o.positions[t] * (a.rotated / 2), y.data() + at});
    }
  }
  return y;
}

TEST(Rope, AgreesWithTheDoubleReferenceInEveryTypeAndLayout) {
  Device device(DeviceKind::cpu, 0, 2);
  for (const Case& c : cases) {
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
      for (bool interleaved : {false, true}) {
        const Outcome o = run(device, c, dtype, interleaved);
        const double inner = dtype == Dtype::f64 ? 0 : 8 * roundoff(Dtype::f32);
        expect_near(o.y, reference_rows(o, values_of(o.x), 1), {1.01, inner}, "y");
        expect_near(o.dx, reference_rows(o, values_of(o.dy), -1), {1.01, inner}, "dx");
      }
    }
  }
}

TEST(Rope, ReferenceGradientByComplexStep) {
  Device device;
  for (bool interleaved : {false, true}) {
    const Outcome o = run(device, {3, 2, 8, 6, 1}, Dtype::f64, interleaved);
    const auto dy = values_of(o.dy);
    expect_complex_step(
        [&](const std::vector<Complex>& x) { return weighted_sum(reference_rows(o, x, 1), dy); },
        values_of(o.x), values_of(o.dx), "dx");
  }
}

// Written out: one head of four dims at position 1 with w = (1, 0.01).
TEST(Rope, PairsAreWhatTheLayoutsSay) {
  Device device;
  Stream stream = Stream::immediate(device);
  const RopeTable table = make_rope_table(device, {}, 4, 2);
  Tensor x = make_tensor(device, {1, 4}, Dtype::f32, {1, 2, 3, 4});
  Rope::Saved saved;
  Rope::Attributes a{.table = table, .heads = 1, .head_dim = 4, .rotated = 4};
  const double c0 = std::cos(1.0), s0 = std::sin(1.0), c1 = std::cos(0.01), s1 = std::sin(0.01);
  auto y = Rope::forward(stream, a, {x, make_ids(device, {1})}, saved)[0];
  expect_near(y, {c0 - 3 * s0, 2 * c1 - 4 * s1, 3 * c0 + s0, 4 * c1 + 2 * s1}, {4, 1e-7}, "half");
  a.interleaved = true;
  y = Rope::forward(stream, a, {x, make_ids(device, {1})}, saved)[0];
  expect_near(y, {c0 - 2 * s0, 2 * c0 + s0, 3 * c1 - 4 * s1, 4 * c1 + 3 * s1}, {4, 1e-7}, "pairs");
}

TEST(Rope, SameBitsOnAnyNumberOfThreads) {
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    const Case c{2000, 3, 20, 20, 0};
    Device one(DeviceKind::cpu, 0, 1);
    const Outcome first = run(one, c, dtype, false);
    for (int threads = 2; threads <= 4; ++threads) {
      Device device(DeviceKind::cpu, 0, threads);
      const Outcome other = run(device, c, dtype, false);
      expect_same_bits(other.y, first.y, "y");
      expect_same_bits(other.dx, first.dx, "dx");
    }
  }
}

TEST(Rope, PositionBeyondTheTableAndWrongHeadsAreErrors) {
  Device device;
  Stream stream = Stream::immediate(device);
  const RopeTable table = make_rope_table(device, {}, 4, 8);
  Tensor x = Tensor::zeros(device, {2, 4}, Dtype::f32);
  Rope::Saved saved;
  Rope::Attributes a{.table = table, .heads = 1, .head_dim = 4, .rotated = 4};
  try {
    Rope::forward(stream, a, {x, make_ids(device, {7, 8})}, saved);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("token 1 has position 8"), std::string::npos);
  }
  a.heads = 2;
  EXPECT_THROW(Rope::forward(stream, a, {x, make_ids(device, {0, 1})}, saved), Error);
  EXPECT_FALSE(Rope::grad_input(stream, a, saved, {Tensor()})[0]);
}

}  // namespace
}  // namespace shoestring
