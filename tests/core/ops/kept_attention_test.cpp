#include "core/ops/kept_attention.h"

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Sizes {
  int64_t heads, rows, k, v;
};

// Plain loops in double on the values as stored.
std::vector<double> expected(const Sizes& s, double scale, const std::vector<double>& q,
                             const Tensor& kept) {
  const std::vector<double> rows = values_of(kept);
  const int64_t stride = kept.columns();
  std::vector<double> out(static_cast<size_t>(s.heads * s.v), 0);
  for (int64_t h = 0; h < s.heads; ++h) {
    std::vector<double> p(static_cast<size_t>(s.rows));
    double sum = 0, largest = -1e300;
    for (int64_t t = 0; t < s.rows; ++t) {
      double dot = 0;
      for (int64_t i = 0; i < s.k; ++i) {
        dot += q[static_cast<size_t>(h * s.k + i)] * rows[static_cast<size_t>(t * stride + i)];
      }
      largest = std::max(largest, p[static_cast<size_t>(t)] = scale * dot);
    }
    for (double& x : p) sum += x = std::exp(x - largest);
    for (int64_t t = 0; t < s.rows; ++t) {
      for (int64_t i = 0; i < s.v; ++i) {
        out[static_cast<size_t>(h * s.v + i)] +=
            p[static_cast<size_t>(t)] / sum * rows[static_cast<size_t>(t * stride + s.k - s.v + i)];
      }
    }
  }
  return out;
}

// Keys are the first columns of the kept rows and values the last ones: they overlap, as those of
// the latent do.
template <class T, class S>
void expect_agreement(const Sizes& s, double scale, double tolerance) {
  Device device;
  const int64_t stride = s.k + 3;
  const Tensor kept =
      make_tensor(device, {s.rows, stride}, dtype_of<T>, random_values(s.rows * stride, 5));
  const std::vector<double> q = random_values(s.heads * s.k, 6);
  const std::vector<S> narrow(q.begin(), q.end());
  const std::vector<double> exact(narrow.begin(), narrow.end());
  std::vector<S> out(static_cast<size_t>(s.heads * s.v), S(-1));
  const T* data = kept.data<T>();
  attend_kept({{data, s.rows, s.k, stride}, {data + s.k - s.v, s.rows, s.v, stride}, scale},
              Vectors<const S>{narrow.data(), s.heads, s.k}, Vectors<S>{out.data(), s.heads, s.v});
  const auto want = expected(s, scale, exact, kept);
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(out[i]), want[i], tolerance)
        << s.heads << " heads, " << s.rows << " rows, element " << i;
  }
}

TEST(KeptAttention, AgreesWithPlainLoopsInEveryType) {
  for (const Sizes& s : {Sizes{1, 1, 8, 8}, Sizes{3, 19, 17, 5}, Sizes{4, 64, 64, 64},
                         Sizes{9, 130, 40, 32}, Sizes{2, 1000, 96, 80}}) {
    for (double scale : {0.2, 3.0}) {
      expect_agreement<double, double>(s, scale, 1e-12);
      expect_agreement<float, float>(s, scale, 1e-4);
      expect_agreement<BFloat16, float>(s, scale, 1e-4);
    }
  }
}

// Scores whose exponentials would overflow, and rows that do not matter.
TEST(KeptAttention, LargeScoresAreSafe) {
  const std::vector<float> k = {200, -200, 199}, v = {1, 2, 3}, q = {10};
  std::vector<float> out(1);
  attend_kept(KeptRows<float>{{k.data(), 3, 1, 1}, {v.data(), 3, 1, 1}, 1.0}, {q.data(), 1, 1},
              {out.data(), 1, 1});
  EXPECT_NEAR(out[0], (1 + 3 * std::exp(-10.0)) / (1 + std::exp(-10.0)), 1e-6);
}

}  // namespace
}  // namespace shoestring
