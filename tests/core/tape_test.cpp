#include "core/tape.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "core/check.h"
#include "core/ops/add.h"
#include "core/ops/linear.h"
#include "core/random.h"

namespace shoestring {
namespace {

// y = x * x, element by element: saves what it reads.
struct Square {
  static constexpr std::string_view name = "square";
  static constexpr int num_inputs = 1, num_outputs = 1;
  struct Attributes {};
  struct Saved {
    Tensor x;
    template <class F>
    void each(F&& f) {
      f(x);
    }
  };
  static Tensors<1> forward(Stream& s, const Attributes&, const Tensors<1>& x, Saved& saved) {
    saved.x = x[0];
    return {map(s, x[0], x[0], [](double a, double b) { return a * b; })};
  }
  static Tensors<1> grad_input(Stream& s, const Attributes&, const Saved& saved,
                               const Tensors<1>& dy) {
    return {map(s, saved.x, dy[0], [](double a, double b) { return 2 * a * b; })};
  }
  static Tensor map(Stream& s, const Tensor& a, const Tensor& b,
                    const std::function<double(double, double)>& f) {
    Tensor y(s.device(), a.shape(), Dtype::f64);
    for (int64_t i = 0; i < a.elements(); ++i) {
      y.data<double>()[i] = f(a.data<double>()[i], b.data<double>()[i]);
    }
    return y;
  }
};
static_assert(PlainOp<Square>);

// y = (x w0^T)^2 w1^T + x, w0 used a second time: the shape of a tied weight.
class TapeTest : public ::testing::Test {
 protected:
  static constexpr int64_t rows = 5, width = 6;
  Device device_;
  Stream stream_ = Stream::immediate(device_);
  ParamStore store_{device_,
                    {{.name = "w0", .shape = {width, width}, .deviation = 0.4},
                     {.name = "w1", .shape = {width, width}, .deviation = 0.4}},
                    Dtype::f64};
  StoreSource source_{store_};
  void SetUp() override { store_.initialise(3); }

  Tensor input() {
    Tensor x(device_, {rows, width}, Dtype::f64);
    const RandomStream random(9, "x");
    for (int64_t i = 0; i < x.elements(); ++i) {
      x.data<double>()[i] = random.normal(static_cast<uint64_t>(i));
    }
    return x;
  }
  Value build(Tape& tape, const Value& x, bool region) {
    const int id = region ? tape.begin_region() : -1;
    tape.begin_segment("first");
    Value h = apply<Square>(tape, {}, {apply<Linear>(tape, {}, {x}, {&store_.params()[0]})});
    tape.end_segment();
    if (region) tape.end_region(id);
    tape.begin_segment("second");
    h = apply<Linear>(tape, {}, {h}, {&store_.params()[1]});
    h = apply<Linear>(tape, {}, {h}, {&store_.params()[0]});
    h = apply<Add>(tape, {}, {h, x});
    tape.end_segment();
    if (region) tape.drop_region(id, {});
    return h;
  }
  struct Outcome {
    std::vector<double> y, dx, dw;
    friend bool operator==(const Outcome&, const Outcome&) = default;
  };
  Outcome collect(Tape& tape, const Value& x, const Value& y) {
    auto list = [](const Tensor& t) {
      return std::vector<double>(t.data<double>(), t.data<double>() + t.elements());
    };
    Outcome o{list(y.tensor()), list(tape.take_gradient(x)), {}};
    for (const Param& p : store_.params()) {
      for (double g : list(store_.gradient(p))) o.dw.push_back(g);
    }
    return o;
  }
  Outcome run(bool region, const std::function<void(Tape&)>& backward) {
    store_.zero_gradients();
    Tape tape(stream_, source_, Tape::Mode::training);
    const Value x = tape.leaf(input(), true);
    const Value y = build(tape, x, region);
    Tensor dy = Tensor::zeros(device_, {rows, width}, Dtype::f64);
    for (double& v : dy.span<double>()) v = 1;
    tape.seed(y, dy);
    backward(tape);
    return collect(tape, x, y);
  }
  double loss_of(const Tensor& x) {
    Tape tape(stream_, source_, Tape::Mode::inference);
    const Value y = build(tape, tape.leaf(x, false), false);
    double sum = 0;
    for (double v : y.tensor().span<double>()) sum += v;
    return sum;
  }
};

TEST_F(TapeTest, GradientsEqualCentralDifferences) {
  const Outcome got = run(false, [](Tape& t) { t.backward(); });
  const double step = 1e-5;
  Tensor x = input();
  for (int64_t i = 0; i < x.elements(); ++i) {
    double& v = x.data<double>()[i];
    const double at = v;
    v = at + step;
    const double up = loss_of(x);
    v = at - step;
    const double down = loss_of(x);
    v = at;
    EXPECT_NEAR(got.dx[static_cast<size_t>(i)], (up - down) / (2 * step), 1e-6);
  }
  const Param& w0 = store_.params()[0];
  for (int64_t i = 0; i < w0.elements; ++i) {  // used twice: both uses must be in the sum
    double& v = store_.weight(w0).data<double>()[i];
    const double at = v;
    v = at + step;
    const double up = loss_of(x);
    v = at - step;
    const double down = loss_of(x);
    v = at;
    EXPECT_NEAR(got.dw[static_cast<size_t>(i)], (up - down) / (2 * step), 1e-6);
  }
}

TEST_F(TapeTest, SplitPhasesEqualTheFusedBackwardBitForBit) {
  const Outcome fused = run(false, [](Tape& t) { t.backward(); });
  const Outcome split = run(false, [](Tape& t) {
    t.backward_input();
    EXPECT_EQ(t.owed(), 3);
    t.backward_weight();
    EXPECT_EQ(t.owed(), 0);
  });
  EXPECT_TRUE(fused == split);
  const Outcome by_segment = run(false, [](Tape& t) {
    int segments = 0;
    while (t.backward_input_segment()) ++segments;
    EXPECT_EQ(segments, 2);
    t.backward_weight();
  });
  EXPECT_TRUE(fused == by_segment);
}

TEST_F(TapeTest, ASegmentsGradientsMayFollowItAtOnce) {
  for (const bool region : {false, true}) {
    const Outcome fused = run(region, [](Tape& t) { t.backward(); });
    std::vector<int> order;
    const Outcome by_segment = run(region, [&](Tape& t) {
      while (const std::optional<int> next = t.next_input_segment()) {
        order.push_back(*next);
        if (region) t.refill_input_segment();
        EXPECT_TRUE(t.backward_input_segment());
        t.backward_weight();
      }
      EXPECT_FALSE(t.backward_input_segment());
    });
    EXPECT_EQ(order, (std::vector<int>{1, 0}));
    EXPECT_TRUE(fused == by_segment);
  }
}

TEST_F(TapeTest, RecomputeEqualsKeepingBitForBit) {
  const Outcome kept = run(false, [](Tape& t) { t.backward(); });
  EXPECT_TRUE(kept == run(true, [](Tape& t) { t.backward(); }));
  EXPECT_TRUE(kept == run(true, [](Tape& t) {
                t.backward_input();
                t.backward_weight();
              }));
}

TEST_F(TapeTest, InputPhaseLetsGoOfWhatOnlyItReads) {
  Tape tape(stream_, source_, Tape::Mode::training);
  const int64_t before = device_.ledger().current(MemoryKind::activations);
  {
    const Value x = tape.leaf(input(), true);
    const Value y = build(tape, x, false);
    Tensor dy = Tensor::zeros(device_, {rows, width}, Dtype::f64);
    tape.seed(y, dy);
  }
  EXPECT_GT(tape.input_arena().bytes(), 0);
  tape.backward_input();
  EXPECT_EQ(tape.input_arena().bytes(), 0);
  EXPECT_GT(tape.weight_arena().bytes(), 0);
  // After I the ledger holds what W reads, the gradient of the leaf and nothing else.
  EXPECT_EQ(device_.ledger().current(MemoryKind::activations) - before,
            tape.weight_arena().bytes() + 256);
  tape.backward_weight();
  EXPECT_EQ(tape.weight_arena().bytes(), 0);
  EXPECT_EQ(device_.ledger().current(MemoryKind::activations) - before, 256);
}

TEST_F(TapeTest, ARegionHoldsLessUntilItsReplay) {
  auto held = [&](bool region) {
    Tape tape(stream_, source_, Tape::Mode::training);
    const int64_t before = device_.ledger().current(MemoryKind::activations);
    const Value x = tape.leaf(input(), true);
    const Value y = build(tape, x, region);
    return device_.ledger().current(MemoryKind::activations) - before;
  };
  EXPECT_LT(held(true), held(false));
}

// What only the tape refers to, with the last segment that saved it.
TEST_F(TapeTest, RestingBlocksAreNobodyElses) {
  for (const bool region : {false, true}) {
    Tape tape(stream_, source_, Tape::Mode::training);
    const Value x = tape.leaf(input(), true);
    {
      const Value y = build(tape, x, region);
      const std::vector<Tape::Resting> resting = tape.resting_blocks();
      std::vector<int> segments;
      for (const Tape::Resting& r : resting) {
        EXPECT_NE(r.block, x.tensor().block());  // held here
        EXPECT_NE(r.block, y.tensor().block());
        EXPECT_FALSE(r.block->hollow());
        segments.push_back(r.segment);
      }
      // The first product, its square and the second product; a region has dropped the first two.
      EXPECT_EQ(segments, region ? std::vector<int>{1} : (std::vector<int>{0, 1, 1}));
      EXPECT_TRUE(tape.resting_blocks().empty());  // now this list holds them too
    }
    EXPECT_EQ(tape.resting_blocks().size(), region ? 1u : 3u);
  }
  Tape open(stream_, source_, Tape::Mode::training);  // a region that may still drop all it made
  open.begin_region();
  open.begin_segment("first");
  {
    const Value x = open.leaf(input(), true);
    apply<Square>(open, {}, {apply<Square>(open, {}, {x})});
  }
  EXPECT_TRUE(open.resting_blocks().empty());
}

TEST_F(TapeTest, InferenceKeepsNothing) {
  Tape tape(stream_, source_, Tape::Mode::inference);
  const Tensor x = input();
  const int64_t before = device_.ledger().current(MemoryKind::activations);
  {
    const Value y = build(tape, tape.leaf(x, false), false);
    EXPECT_EQ(device_.ledger().current(MemoryKind::activations) - before, 256);
  }
  EXPECT_EQ(device_.ledger().current(MemoryKind::activations), before);
}

// Remembers the calls of the seam.
class RecordingSource : public StoreSource {
 public:
  using StoreSource::StoreSource;
  void acquire(int segment, Phase phase) override { log("+", segment, phase); }
  void release(int segment, Phase phase) override { log("-", segment, phase); }
  void gradient_ready(const Param& p) override { text_ += "!" + p.info.name + " "; }
  const std::string& text() const { return text_; }

 private:
  void log(const char* sign, int segment, Phase phase) {
    text_ += sign + std::to_string(segment) + "FIW"[static_cast<int>(phase)] + std::string(" ");
  }
  std::string text_;
};

TEST_F(TapeTest, TheSourceIsToldAboutSegmentsAndFinishedGradients) {
  RecordingSource source(store_);
  Tape tape(stream_, source, Tape::Mode::training);
  const Value x = tape.leaf(input(), true);
  const Value y = build(tape, x, false);
  tape.seed(y, Tensor::zeros(device_, {rows, width}, Dtype::f64));
  tape.backward();
  // w0 is used in both segments: ready only when its use in the first one is done.
  EXPECT_EQ(source.text(), "+0F -0F +1F -1F +1I !w1 -1I +0I !w0 -0I ");
}

// The second segment's gradients need what the first one made: its weights are asked for again
// while its two ops run anew, and only then.
TEST_F(TapeTest, AReplayAsksForTheWeightsOfItsSegment) {
  RecordingSource source(store_);
  Tape tape(stream_, source, Tape::Mode::training);
  const Value y = build(tape, tape.leaf(input(), true), true);
  tape.seed(y, Tensor::zeros(device_, {rows, width}, Dtype::f64));
  tape.backward();
  EXPECT_EQ(source.text(), "+0F -0F +1F -1F +1I +0F -0F +0F -0F !w1 -1I +0I !w0 -0I ");
}

TEST_F(TapeTest, ValuesShareTheirEncodings) {
  const Value x(input());
  const Tensor a = x.encoded(stream_, Dtype::bf16), b = x.encoded(stream_, Dtype::bf16);
  EXPECT_EQ(a.raw(), b.raw());
  EXPECT_EQ(x.encoded(stream_, Dtype::f64).raw(), x.tensor().raw());
}

TEST_F(TapeTest, StatisticsOfOneNameAddUp) {
  Tape tape(stream_, source_, Tape::Mode::training);
  EXPECT_FALSE(tape.wants_statistics());
  tape.want_statistics();
  EXPECT_TRUE(tape.wants_statistics());
  tape.add_statistic("a", {.squares = 1, .count = 1, .largest = 1});
  tape.add_statistic("a", {.squares = 4, .count = 2, .largest = 2});
  tape.add_statistic("b", {.squares = 9, .count = 1, .largest = 3});
  ASSERT_EQ(tape.statistics().size(), 2u);
  EXPECT_EQ(tape.statistics().at("a").squares, 5);
  EXPECT_EQ(tape.statistics().at("a").count, 3);
  EXPECT_EQ(tape.statistics().at("b").largest, 3);
}

TEST_F(TapeTest, MisuseIsAnError) {
  Tape tape(stream_, source_, Tape::Mode::training);
  const Value x = tape.leaf(input(), true);
  EXPECT_THROW(tape.seed(x, Tensor::zeros(device_, {rows, 2}, Dtype::f64)), Error);
  EXPECT_THROW(tape.end_segment(), Error);
  tape.begin_region();
  EXPECT_THROW(tape.begin_region(), Error);
  EXPECT_THROW(Value().tensor(), Error);
}

}  // namespace
}  // namespace shoestring
