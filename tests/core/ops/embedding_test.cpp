#include "core/ops/embedding.h"

#include <cstring>

#include "tests/core/ops/op_check.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

// Skewed like text: a few tokens are everywhere, most of the table is not used.
std::vector<int32_t> skewed_tokens(int64_t n, int32_t vocabulary) {
  std::mt19937_64 generator(9);
  std::geometric_distribution<int32_t> draw(0.2);
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (auto& t : tokens) t = std::min(draw(generator), vocabulary - 1);
  return tokens;
}

TEST(Embedding, LooksUpScaledRowsInEveryType) {
  Device device(DeviceKind::cpu, 0, 3);
  Stream stream = Stream::immediate(device);
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    for (double multiplier : {1.0, 12.0, 0.3}) {
      const std::vector<int32_t> ids = {4, 0, 4, 10, 3};
      Tensor weight = make_tensor(device, {11, 13}, dtype, random_values(11 * 13, 1));
      NothingSaved none;
      Embedding::WeightSaved saved;
      const auto x =
          Embedding::forward(stream, {multiplier}, {make_ids(device, ids)}, {weight}, none, saved);
      const auto table = values_of(weight);
      std::vector<double> expected;
      for (int32_t id : ids) {
        for (size_t i = 0; i < 13; ++i) {
          expected.push_back(multiplier * table[static_cast<size_t>(id) * 13 + i]);
        }
      }
      // The multiplier itself is rounded to f32.
      expect_near(x[0], expected, {multiplier == 1 ? 0 : 2.01, 0}, "x");
      EXPECT_FALSE(Embedding::grad_input(stream, {}, none, {weight}, {x[0]})[0]);
    }
  }
}

TEST(Embedding, WeightGradientIsTheSumOverPositionsAddedOnce) {
  const int64_t n = 700, width = 37, vocabulary = 40;
  const auto ids = skewed_tokens(n, vocabulary);
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    Device keep;
    Tensor first;
    for (int threads = 1; threads <= 4; ++threads) {
      Device device(DeviceKind::cpu, 0, threads);
      Stream stream = Stream::immediate(device);
      Tensor weight = Tensor::zeros(device, {vocabulary, width}, dtype);
      Tensor dx = make_tensor(device, {n, width}, dtype, random_values(n * width, 2));
      Tensor dw = make_tensor(device, {vocabulary, width}, Dtype::f32,
                              random_values(vocabulary * width, 3));
      auto expected = values_of(dw);
      const auto gradient = values_of(dx);
      for (int64_t i = 0; i < n * width; ++i) {
        const int64_t token = ids[static_cast<size_t>(i / width)];
        expected[static_cast<size_t>(token * width + i % width)] +=
            0.5 * gradient[static_cast<size_t>(i)];
      }
      NothingSaved none;
      Embedding::WeightSaved saved;
      Embedding::forward(stream, {0.5}, {make_ids(device, ids)}, {weight}, none, saved);
      Embedding::grad_weight(stream, {0.5}, saved, {dx}, {dw});
      expect_near(dw, expected, {1.01, static_cast<double>(n) * roundoff(Dtype::f32)}, "dw");
      if (threads == 1) first = make_tensor(keep, dw.shape(), Dtype::f32, values_of(dw));
      expect_same_bits(dw, first, "dw");
    }
  }
}

// 2^24 + 1 + 1: only a sum that is formed first, (1 + 1) + 2^24, keeps both ones.
TEST(Embedding, OneAdditionPerTokenToTheStore) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor weight = Tensor::zeros(device, {2, 1}, Dtype::f32);
  Tensor dx = make_tensor(device, {2, 1}, Dtype::f32, {1, 1});
  Tensor dw = make_tensor(device, {2, 1}, Dtype::f32, {0, 0x1p24});
  Embedding::grad_weight(stream, {}, {make_ids(device, {1, 1})}, {dx}, {dw});
  EXPECT_EQ(dw.data<float>()[1], 0x1p24f + 2);
  EXPECT_EQ(dw.data<float>()[0], 0);
}

TEST(Embedding, TokenOutsideTheVocabularyIsNamedWithItsPosition) {
  Device device;
  Stream stream = Stream::immediate(device);
  Tensor weight = Tensor::zeros(device, {5, 4}, Dtype::f32);
  NothingSaved none;
  Embedding::WeightSaved saved;
  for (int32_t bad : {5, -1, 1 << 30}) {
    try {
      Embedding::forward(stream, {}, {make_ids(device, {1, 2, bad, 3})}, {weight}, none, saved);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      const std::string text = error.what();
      EXPECT_NE(text.find("token " + std::to_string(bad) + " at position 2"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace shoestring
