#include "core/ops/attention_reference.h"

#include <complex>

#include "tests/core/ops/attention_oracle.h"

namespace shoestring::attention {
namespace {

using Complex = std::complex<double>;
constexpr double step = 1e-30;

std::vector<Complex> complexes(const std::vector<double>& x) { return {x.begin(), x.end()}; }

// d (sum of dy * o) / d x[i] by a complex step: no difference, so no cancellation.
class ComplexStep {
 public:
  ComplexStep(const AttentionCase& c, const AttentionOracle& x)
      : c_(c), dy_(x.dy), q_(complexes(x.q)), k_(complexes(x.k)), v_(complexes(x.v)) {}
  void expect_gradient(const char* what, std::vector<Complex>& x, const std::vector<double>& dx) {
    double largest = 0;
    for (double value : dx) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] += Complex(0, step);
      ASSERT_NEAR(slope(), dx[i], 1e-12 * largest) << what << "[" << i << "]";
      x[i] = x[i].real();
    }
  }
  void expect_all(const AttentionOracle& x) {
    expect_gradient("q", q_, x.dq);
    expect_gradient("k", k_, x.dk);
    expect_gradient("v", v_, x.dv);
  }

 private:
  double slope() const {
    const Attention::Attributes& a = c_.attributes;
    std::vector<Complex> o(dy_.size()), log_sum_exp(a.batch * a.q_heads * a.length);
    reference_forward<Complex>(a, {.q = q_.data(),
                                   .k = k_.data(),
                                   .v = v_.data(),
                                   .first_key = c_.first_key.data(),
                                   .o = o.data(),
                                   .log_sum_exp = log_sum_exp.data()});
    Complex sum = 0;
    for (size_t i = 0; i < o.size(); ++i) sum += dy_[i] * o[i];
    return sum.imag() / step;
  }
  const AttentionCase& c_;
  std::vector<double> dy_;
  std::vector<Complex> q_, k_, v_;
};

void expect_complex_step(const AttentionCase& c) {
  SCOPED_TRACE(c.name);
  const AttentionOracle x(c, AttentionValues<double>(c.attributes));
  ComplexStep(c, x).expect_all(x);
}

TEST(AttentionReference, GradientsAreThoseOfComplexSteps) {
  expect_complex_step(make_case(
      "plain",
      {.batch = 1, .length = 6, .q_heads = 1, .kv_heads = 1, .head_dim = 3, .v_head_dim = 3}));
  expect_complex_step(make_case(
      "groups",
      {.batch = 2, .length = 5, .q_heads = 4, .kv_heads = 2, .head_dim = 3, .v_head_dim = 2}));
  expect_complex_step(make_case("window", {.batch = 1,
                                           .length = 9,
                                           .q_heads = 2,
                                           .kv_heads = 1,
                                           .head_dim = 2,
                                           .v_head_dim = 3,
                                           .window = 4}));
  expect_complex_step(make_case("documents",
                                {.batch = 2,
                                 .length = 12,
                                 .q_heads = 2,
                                 .kv_heads = 1,
                                 .head_dim = 2,
                                 .v_head_dim = 2,
                                 .window = 5},
                                4));
}

// By hand: two tokens, one head of one column.
TEST(AttentionReference, TwoTokensByHand) {
  const Attention::Attributes a = {.batch = 1,
                                   .length = 2,
                                   .q_heads = 1,
                                   .kv_heads = 1,
                                   .head_dim = 1,
                                   .v_head_dim = 1,
                                   .scale = 0.5};
  const std::vector<double> q = {1, 2}, k = {3, std::log(3.0) + 3}, v = {10, 20};
  const std::vector<int32_t> first_key = {0, 0};
  std::vector<double> o(2), log_sum_exp(2);
  reference_forward<double>(a, {.q = q.data(),
                                .k = k.data(),
                                .v = v.data(),
                                .first_key = first_key.data(),
                                .o = o.data(),
                                .log_sum_exp = log_sum_exp.data()});
  EXPECT_DOUBLE_EQ(o[0], 10);
  EXPECT_DOUBLE_EQ(log_sum_exp[0], 1.5);
  EXPECT_DOUBLE_EQ(o[1], (10 + 3 * 20) / 4.0);  // weights 1 : 3
  EXPECT_DOUBLE_EQ(log_sum_exp[1], 3 + std::log(4.0));
}

}  // namespace
}  // namespace shoestring::attention
