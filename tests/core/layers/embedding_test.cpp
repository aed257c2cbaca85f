#include "core/layers/embedding.h"

#include "core/ops/add.h"
#include "tests/core/layers/layer_harness.h"

namespace shoestring {
namespace {

constexpr int64_t width = 4, rows = 5, vocabulary = 6;

// The second half of a vocabulary.
class UpperHalf : public VocabularyShard {
 public:
  int64_t vocabulary() const override { return 2 * shoestring::vocabulary; }
  int64_t first() const override { return shoestring::vocabulary; }
  int64_t widest() const override { return shoestring::vocabulary; }
  void merge(Device&, std::span<VocabularyRow>) const override {}
};

class Doubling : public Boundary {
 public:
  Value cross(Tape& tape, const Value& x) override { return apply<Add>(tape, {}, {x, x}); }
};

TEST(EmbeddingLayer, GivesTheRowsThatAreHere) {
  LayerHarness h({{.name = "e", .shape = {vocabulary, width}, .deviation = 1}}, rows);
  const std::vector<int32_t> ids = {1, 7, 11, 5, 7};
  const Tensor tokens = Tensor::from<int32_t>(h.device(), {rows}, ids);
  const UpperHalf half;
  Doubling doubling;
  const EmbeddingLayer layer{
      .table = h.param("e"), .multiplier = 3, .vocabulary = &half, .out = &doubling};
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  const Value y = layer.run(context, tokens);
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t row = ids[static_cast<size_t>(t)] - vocabulary;
    for (int64_t i = 0; i < width; ++i) {
      const double want = row < 0 ? 0 : 2 * 3 * h.weight("e")[row * width + i];
      EXPECT_NEAR(y.tensor().data<double>()[t * width + i], want, 1e-15) << t;
    }
  }
  const Tensor dy = h.values({rows, width}, "dy");
  tape.seed(y, dy);
  tape.backward();
  const double* g = h.store().gradient(h.store().param("e")).data<double>();
  for (int64_t row = 0; row < vocabulary; ++row) {
    double want = 0;
    for (int64_t t = 0; t < rows; ++t) {
      if (ids[static_cast<size_t>(t)] - vocabulary == row) {
        want += 2 * 3 * dy.data<double>()[t * width];
      }
    }
    EXPECT_NEAR(g[row * width], want, 1e-12) << row;
  }
}

TEST(EmbeddingLayer, OfAWholeTable) {
  LayerHarness h({{.name = "e", .shape = {vocabulary, width}, .deviation = 1}}, 2);
  const std::vector<int32_t> ids = {4, 0};
  Tape tape = h.tape();
  LayerContext context{.tape = tape, .batch = h.batch()};
  const Value y = EmbeddingLayer{.table = h.param("e")}.run(
      context, Tensor::from<int32_t>(h.device(), {2}, ids));
  EXPECT_EQ(y.tensor().data<double>()[0], h.weight("e")[4 * width]);
  EXPECT_EQ(y.tensor().data<double>()[width], h.weight("e")[0]);
}

}  // namespace
}  // namespace shoestring
