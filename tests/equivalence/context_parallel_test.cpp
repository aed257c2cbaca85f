// Whole models whose rows are shared out among context ranks: losses and gradients, summed over the
// ranks, are those of one rank. Positions of packed documents, labels and shifted tokens at the
// borders of chunks, windows, latent attention and prediction modules, two rows at once.

#include <cmath>
#include <functional>
#include <memory>

#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/context_all_to_all.h"
#include "parallel/context_cut.h"
#include "parallel/context_ring.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

struct Outcome {
  double loss_sum = 0;
  int64_t labels = 0;
  std::vector<std::vector<double>> gradients;  // of each parameter
  void add(const Outcome& other) {
    loss_sum += other.loss_sum;
    labels += other.labels;
    if (gradients.empty()) gradients.resize(other.gradients.size());
    for (size_t p = 0; p < gradients.size(); ++p) {
      gradients[p].resize(other.gradients[p].size());
      for (size_t i = 0; i < gradients[p].size(); ++i) gradients[p][i] += other.gradients[p][i];
    }
  }
};

Outcome train(Harness& h, const MicroBatch& rows, AttentionCore* core, Recompute recompute) {
  h.store().zero_gradients();
  const BatchTensors batch = to_device(h.device(), rows);
  Tape tape(h.stream(), h.source(), Tape::Mode::training);
  LayerContext context{.tape = tape, .batch = batch, .attention = core, .recompute = recompute};
  std::vector<PredictionResult> predictions;
  const HeadLoss::Result r =
      h.model().run(context, {.loss_scale = 0.125, .predictions = &predictions});
  tape.backward();
  Outcome outcome{.loss_sum = r.loss_sum, .labels = r.count, .gradients = {}};
  for (const PredictionResult& p : predictions) {
    outcome.loss_sum += p.loss_sum;
    outcome.labels += p.count;
  }
  for (const Param& p : h.store().params()) {
    const auto g = h.store().gradient(p).span<double>();
    outcome.gradients.emplace_back(g.begin(), g.end());
  }
  return outcome;
}

using MakeCore = std::function<std::unique_ptr<AttentionCore>(Communicator&, Device&)>;

Outcome train_over_ranks(const ModelConfig& config, const MicroBatch& rows, int ranks,
                         const MakeCore& make, Recompute recompute) {
  std::vector<Outcome> parts(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](Communicator& world) {
    Harness h(config, Dtype::f64);
    const auto core = make(world, h.device());
    const MicroBatch part =
        cut_context(rows, context_share(rows.length, world.rank(), world.size()), config.mtp.depth);
    parts[static_cast<size_t>(world.rank())] = train(h, part, core.get(), recompute);
  });
  Outcome sum;
  for (const Outcome& part : parts) sum.add(part);
  return sum;
}

void expect_equal(const Outcome& got, const Outcome& want, const ParamStore& store) {
  EXPECT_EQ(got.labels, want.labels);
  EXPECT_NEAR(got.loss_sum, want.loss_sum, 1e-11 * want.loss_sum);
  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  for (size_t p = 0; p < got.gradients.size(); ++p) {
    double apart = 0, norm = 0;
    for (size_t i = 0; i < got.gradients[p].size(); ++i) {
      apart += std::pow(got.gradients[p][i] - want.gradients[p][i], 2);
      norm += std::pow(want.gradients[p][i], 2);
    }
    EXPECT_GT(norm, 0) << store.params()[p].info.name;
    EXPECT_LE(std::sqrt(apart), 1e-11 * std::sqrt(norm)) << store.params()[p].info.name;
  }
}

std::unique_ptr<AttentionCore> make_ring(Communicator& ranks, Device& device) {
  return std::make_unique<RingAttention>(ranks, device);
}
std::unique_ptr<AttentionCore> make_all_to_all(Communicator& ranks, Device&) {
  return std::make_unique<AllToAllAttention>(ranks);
}

void expect_parity(const std::vector<int>& counts, const MakeCore& make,
                   Recompute recompute = Recompute::none) {
  for (const ModelConfig& config : families()) {
    if (config.moe.on()) continue;  // balance terms are not sums over tokens
    const MicroBatch rows = some_rows(config.vocabulary, 48);
    Harness one(config, Dtype::f64);
    const Outcome want = train(one, rows, nullptr, Recompute::none);
    for (int ranks : counts) {
      SCOPED_TRACE(cat(ranks, " ranks, ", config.mla.on() ? "latent" : "grouped", " attention, ",
                       config.mtp.depth, " modules, window ", config.window));
      expect_equal(train_over_ranks(config, rows, ranks, make, recompute), want, one.store());
    }
  }
}

TEST(ContextParallel, RingEqualsOneRank) { expect_parity({2, 3, 4, 8}, make_ring); }
TEST(ContextParallel, AllToAllEqualsOneRank) { expect_parity({2, 4}, make_all_to_all); }

TEST(ContextParallel, RecomputeRunsTheExchangesAgain) {
  for (const Recompute recompute : {Recompute::attention, Recompute::block}) {
    expect_parity({2}, make_ring, recompute);
    expect_parity({2}, make_all_to_all, recompute);
  }
}

TEST(ContextParallel, OneLabelInTheWholeBatch) {
  ModelConfig config = small_model();
  config.mtp = {.depth = 1, .weight = 0.3};
  MicroBatch rows = some_rows(config.vocabulary, 16);
  for (size_t i = 0; i < rows.labels.size(); ++i) {
    if (i != 20 && i != 21) rows.labels[i] = -1;  // the module's label needs two
  }
  rows.valid_labels = 2;
  Harness one(config, Dtype::f64);
  const Outcome want = train(one, rows, nullptr, Recompute::none);
  EXPECT_EQ(want.labels, 3);
  for (int ranks : {2, 4}) {
    expect_equal(train_over_ranks(config, rows, ranks, make_ring, Recompute::none), want,
                 one.store());
    expect_equal(train_over_ranks(config, rows, ranks, make_all_to_all, Recompute::none), want,
                 one.store());
  }
}

}  // namespace
}  // namespace shoestring
