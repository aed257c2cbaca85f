#include "parallel/tensor_parallel.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <set>

#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

using Values = std::map<std::string, std::vector<double>>;

struct Outcome {
  double loss = 0, correct = 0;
  std::vector<double> predictions;
  Values gradients, weights;  // of the whole parameters
};

std::vector<double> doubles_of(const Tensor& t) {
  std::vector<double> list;
  dispatch_float(t.dtype(), [&]<class T>() {
    for (const T& x : t.span<T>()) {
      if constexpr (std::is_same_v<T, double>) {
        list.push_back(x);
      } else {
        list.push_back(static_cast<double>(static_cast<float>(x)));
      }
    }
  });
  return list;
}

// Puts a rank's part in its place; what several ranks hold must be the same.
void place(const Param& p, const std::vector<double>& part, std::vector<double>& whole,
           std::vector<char>& there) {
  const ParamShard& s = p.info.shard;
  const bool vector = p.info.shape.rank() == 1;
  const int64_t here = vector ? 1 : p.info.shape.columns();
  const int64_t all = vector ? 1 : (s.cut() ? s.whole.columns() : here);
  const int64_t rows = s.cut() ? s.whole[0] : p.info.shape[0];
  whole.resize(static_cast<size_t>(rows * all));
  there.resize(whole.size());
  std::vector<RowRun> runs = s.rows;
  if (runs.empty()) runs = {{.local = 0, .global = 0, .count = rows}};
  for (const RowRun& run : runs) {
    for (int64_t r = 0; r < run.count; ++r) {
      for (int64_t c = 0; c < here; ++c) {
        const auto to = static_cast<size_t>((run.global + r) * all + s.first_column + c);
        const double value = part[static_cast<size_t>((run.local + r) * here + c)];
        if (there[to]) {
          EXPECT_EQ(whole[to], value) << p.info.name << " differs between ranks";
        }
        whole[to] = value, there[to] = 1;
      }
    }
  }
}

Outcome run_group(const ModelConfig& model, int t, Dtype dtype,
                  Recompute recompute = Recompute::none, int chunks = 0, bool exact = false) {
  Outcome outcome;
  std::map<std::string, std::vector<char>> there, weights_there;
  std::set<double> losses;
  std::mutex mutex;
  run_ranks(t, [&](Communicator& group) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    TensorParallel parallel(model, group, device, chunks);
    ParamStore store(device, parallel.shard(parameters_of(model, whole_model(model))), dtype);
    store.initialise(1);
    StoreSource source(store);
    const Transformer transformer(model, store, whole_model(model), parallel.boundaries());
    const BatchTensors batch = to_device(device, some_rows(model.vocabulary));
    Tape tape(stream, source, Tape::Mode::training);
    LayerContext context{
        .tape = tape, .batch = batch, .share = 0.05, .recompute = recompute, .exact = exact};
    std::vector<PredictionResult> predictions;
    const HeadLoss::Result result =
        transformer.run(context, {.loss_scale = 0.05, .z_loss = 1e-2, .predictions = &predictions});
    tape.backward();
    for (const Param& p : store.params()) parallel.sum_gradient(p, store.gradient(p), stream);
    const std::lock_guard lock(mutex);
    if (group.rank() == 0) {
      outcome.loss = result.loss_sum + result.penalty_sum;
      outcome.correct = static_cast<double>(result.correct);
      for (const PredictionResult& p : predictions) {
        outcome.predictions.push_back(p.loss_sum);
        outcome.predictions.push_back(static_cast<double>(p.agreed));
      }
    }
    losses.insert(result.loss_sum + result.penalty_sum);
    for (const Param& p : store.params()) {
      place(p, doubles_of(store.gradient(p)), outcome.gradients[p.info.name], there[p.info.name]);
      place(p, doubles_of(store.weight(p)), outcome.weights[p.info.name],
            weights_there[p.info.name]);
    }
  });
  EXPECT_EQ(losses.size(), 1u) << "ranks disagree on the loss";
  for (const auto& [name, list] : there) {
    EXPECT_EQ(std::count(list.begin(), list.end(), 0), 0) << name << " has holes";
  }
  return outcome;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

void expect_equal(const Outcome& got, const Outcome& want, double tolerance,
                  const std::string& what) {
  EXPECT_NEAR(got.loss, want.loss, tolerance * std::abs(want.loss)) << what;
  EXPECT_EQ(got.correct, want.correct) << what;
  ASSERT_EQ(got.predictions.size(), want.predictions.size());
  for (size_t i = 0; i < want.predictions.size(); ++i) {
    EXPECT_NEAR(got.predictions[i], want.predictions[i], tolerance * want.predictions[i]) << what;
  }
  EXPECT_EQ(got.weights, want.weights) << what << ": initial weights";
  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  for (const auto& [name, g] : want.gradients) {
    EXPECT_LE(distance(got.gradients.at(name), g), tolerance) << what << " " << name;
  }
}

TEST(TensorParallel, EveryFamilyEqualsOneRank) {
  int number = 0;
  for (const ModelConfig& model : families()) {
    for (const Dtype dtype : {Dtype::f64, Dtype::f32}) {
      const Outcome alone = run_group(model, 1, dtype);
      for (const int t : {2, 4}) {
        const std::vector<std::string> complaints = tensor_parallel_complaints(model, t);
        if (!complaints.empty()) continue;
        expect_equal(run_group(model, t, dtype), alone, dtype == Dtype::f64 ? 1e-11 : 1e-5,
                     cat("family ", number, ", t = ", t, ", ", name_of(dtype)));
      }
    }
    ++number;
  }
  EXPECT_GE(number, 5);
}

// Rows in runs change no product in f64 beyond its rounding, and no bit where products are exact.
TEST(TensorParallel, RowsThatTravelInRunsEqualOneRank) {
  for (const ModelConfig& model : families()) {
    const Outcome alone = run_group(model, 1, Dtype::f64);
    for (const int t : {2, 4}) {
      if (!tensor_parallel_complaints(model, t).empty()) continue;
      for (const int chunks : {1, 2, 3, 50}) {
        expect_equal(run_group(model, t, Dtype::f64, Recompute::none, chunks), alone, 1e-11,
                     cat("t = ", t, ", ", chunks, " runs"));
      }
    }
  }
}

TEST(TensorParallel, RunsChangeNoBitOfExactProducts) {
  for (const ModelConfig& model : families()) {
    if (!tensor_parallel_complaints(model, 2).empty()) continue;
    const Outcome want = run_group(model, 2, Dtype::bf16, Recompute::none, 0, true);
    for (const int chunks : {1, 3}) {
      const Outcome got = run_group(model, 2, Dtype::bf16, Recompute::block, chunks, true);
      EXPECT_EQ(got.loss, want.loss);
      EXPECT_EQ(got.gradients, want.gradients) << chunks;
    }
  }
}

// Balance losses are of whole sequences: shared rows may cut them.
TEST(TensorParallel, BalanceLossesSeeAllRows) {
  ModelConfig model = families().back();
  model.moe.balance = {.sequence = 0.5, .switch_loss = 0.3, .global_batch = 0.2, .z_loss = 0.1};
  const Outcome alone = run_group(model, 1, Dtype::f64);
  ModelConfig without = model;
  without.moe.balance = {};
  const std::string router = "layers.1.moe.router.weight";
  EXPECT_GT(
      distance(run_group(without, 1, Dtype::f64).gradients.at(router), alone.gradients.at(router)),
      0.01);
  for (const int t : {2, 4}) expect_equal(run_group(model, t, Dtype::f64), alone, 1e-11, cat(t));
}

TEST(TensorParallel, RecomputeChangesNoBit) {
  for (const ModelConfig& model : families()) {
    if (!tensor_parallel_complaints(model, 2).empty()) continue;
    const Outcome want = run_group(model, 2, Dtype::f32);
    for (const Recompute policy :
         {Recompute::swiglu, Recompute::norms, Recompute::attention, Recompute::block}) {
      const Outcome got = run_group(model, 2, Dtype::f32, policy);
      EXPECT_EQ(got.loss, want.loss);
      EXPECT_EQ(got.gradients, want.gradients) << static_cast<int>(policy);
    }
  }
}

TEST(TensorParallel, SaysAllThatIsInTheWay) {
  ModelConfig model = small_model();
  model.heads = 6;
  model.kv_heads = 3;
  EXPECT_EQ(
      tensor_parallel_complaints(model, 4),
      (std::vector<std::string>{"model.heads = 6 is no multiple of it",
                                "model.kv_heads = 3 is neither a multiple nor a divisor of it"}));
  EXPECT_EQ(tensor_parallel_complaints(model, 3),
            (std::vector<std::string>{"model.ffn = 40 is no multiple of it"}));
}

TEST(ShardParameters, PartsAreWholeHeads) {
  const ModelConfig model = small_model();  // 4 heads of 6, 2 of k and v
  const auto whole = parameters_of(model, whole_model(model));
  for (const int r : {0, 3}) {
    for (const ParamInfo& p : shard_parameters(model, whole, r, 4)) {
      if (p.name != "layers.0.attention.qkv.weight") continue;
      EXPECT_EQ(p.shape, (Shape{18, 24}));
      EXPECT_EQ(p.parts, (std::vector<int64_t>{6, 6, 6}));
      EXPECT_EQ(p.shard.rows[0].global, 6 * r);
      EXPECT_EQ(p.shard.rows[1].global, 24 + 6 * (r / 2));
      EXPECT_EQ(p.shard.rows[2].global, 36 + 6 * (r / 2));
    }
  }
}

}  // namespace
}  // namespace shoestring
