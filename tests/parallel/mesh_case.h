#pragma once
// One step of a small model under any mesh, with the gradients put together as those of the whole
// model, for comparison with one rank.

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/fp8/layer.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/mesh_step.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {

struct MeshCase {
  ModelConfig model;
  PartConfig part;
  int ranks = 1;
  Dtype dtype = Dtype::f32;
  int micros = 4;  // of all data ranks
  int64_t length = 16;
  Recompute recompute = Recompute::none;
  std::string precision = "bf16";  // recipe
  bool exact = false;
  int64_t zero_stage = 0;
  double z_loss = 1e-2;
  int64_t first_layers_bf16 = 0;
  bool documents = true;  // several in a row
  bool updates = false;   // parameters are gathered behind the sums
  bool offload_optimizer = false, offload_activations = false;
  std::function<MeshStep::Hooks(ModelPart&, Stream&)> hooks = nullptr;
};

struct MeshOutcome {
  double loss = 0, correct = 0, labels = 0;
  std::vector<double> predictions;  // losses and labels by module
  // Of each micro-batch by each rank that tells of it: the loss, then `predictions`.
  std::map<std::pair<int64_t, int>, std::vector<double>> told;
  std::map<std::string, std::vector<float>> gradients;
  std::map<std::string, std::vector<char>> counts;  // how often each element was counted
  std::map<std::string, ExpertTraffic> experts;     // rows sent, over all ranks, by block
  // Peaks of what was offloaded, over all ranks.
  int64_t host_masters = 0, host_activations = 0;
  std::map<int, int64_t> activations;  // peaks on the devices, by rank
};

inline std::vector<MicroBatch> mesh_micro_batches(const MeshCase& c) {
  std::vector<MicroBatch> list;
  for (int i = 0; i < c.micros; ++i) {
    MicroBatch m = some_rows(c.model.vocabulary, c.length);
    for (size_t t = 0; t < m.tokens.size(); ++t) {
      m.tokens[t] = static_cast<int32_t>((m.tokens[t] + 7 * i) % c.model.vocabulary);
    }
    // Labels are missing here and there, unevenly among micro-batches.
    for (int j = 0; j < i; ++j) {
      int32_t& label = m.labels[static_cast<size_t>(2 * j + 1) % m.labels.size()];
      m.valid_labels -= label >= 0 ? 1 : 0;
      label = -1;
    }
    if (!c.documents) {
      m.first_key.assign(m.tokens.size(), 0);
      for (size_t t = 0; t < m.tokens.size(); ++t) {
        m.positions[t] = static_cast<int32_t>(static_cast<int64_t>(t) % c.length);
      }
    }
    list.push_back(m);
  }
  return list;
}

// Puts elements [begin, end) of a rank's part into the whole parameter.
inline void put_elements(const Param& p, const FlatSpan<const float>& values,
                         const ParamRange& range, MeshOutcome& outcome) {
  const ParamShard& s = p.info.shard;
  const bool vector = p.info.shape.rank() == 1;
  const int64_t here = vector ? 1 : p.info.shape.columns();
  const int64_t all = vector ? 1 : (s.cut() ? s.whole.columns() : here);
  const int64_t rows = s.cut() ? s.whole[0] : p.info.shape[0];
  std::vector<float>& whole = outcome.gradients[p.info.name];
  std::vector<char>& counts = outcome.counts[p.info.name];
  const float* from = values.at({p.offset + range.begin, p.offset + range.end});
  whole.resize(static_cast<size_t>(rows * all));
  counts.resize(whole.size());
  for (int64_t i = range.begin; i < range.end; ++i) {
    int64_t row = i / here;
    for (const RowRun& run : s.rows) {
      if (i / here < run.local || i / here >= run.local + run.count) continue;
      row = run.global + i / here - run.local;
      break;
    }
    const auto to = static_cast<size_t>(row * all + s.first_column + i % here);
    whole[to] = from[i - range.begin];
    ++counts[to];
  }
}

// What the rank tells of its micro-batches and of its experts' rows.
inline void take_told(const ModelPart& part, const MeshStep& step, int rank, MeshOutcome& outcome) {
  if (part.exchange() != nullptr) {
    for (const auto& [block, rows] : part.exchange()->sent()) outcome.experts[block] += rows;
  }
  if (step.holds_loss() && part.tells_losses()) {
    for (size_t i = 0; i < step.results().size(); ++i) {
      const StageResult& r = step.results()[i];
      const auto micro = static_cast<int64_t>(i) * part.data_ranks() + part.data_rank();
      std::vector<double>& told = outcome.told[{micro, rank}];
      told = {r.main.loss_sum + r.main.penalty_sum};
      for (const PredictionResult& p : r.predictions) {
        told.push_back(p.loss_sum);
        told.push_back(static_cast<double>(p.count));
      }
      outcome.correct += static_cast<double>(r.main.correct);
      outcome.labels += static_cast<double>(r.main.count);
    }
  }
}

inline void run_mesh_rank(const MeshCase& c, Communicator& world, std::mutex& mutex,
                          MeshOutcome& outcome) {
  Device device(DeviceKind::cpu, 0, 1), host(DeviceKind::cpu, 0, 1);
  Stream compute = Stream::immediate(device);
  std::unique_ptr<Stream> copies;
  if (c.offload_activations) copies = std::make_unique<Stream>(Stream::worker(device, "offload"));
  ModelPart part(c.model, c.part, world, device);
  ParamStore store(device, part.parameters(), c.dtype,
                   memory_of_stage(c.zero_stage, c.dtype, c.offload_optimizer));
  std::unique_ptr<Fp8Plan> plan;
  if (c.precision != "bf16") {
    PrecisionConfig precision;
    precision.recipe = c.precision;
    precision.first_layers_bf16 = c.first_layers_bf16;
    plan = std::make_unique<Fp8Plan>(resolve(precision), store, c.model.layers);
  }
  StepGradients gradients(
      part, store, compute,
      {.sharing = {.bucket_bytes = 8192, .zero_stage = c.zero_stage, .exact = c.exact},
       .host = c.offload_optimizer ? &host : nullptr});
  gradients.shards().initialise(1);
  MeshStep step(part, store, gradients, compute,
                {.recompute = c.recompute,
                 .fp8 = plan.get(),
                 .exact = c.exact,
                 .z_loss = c.z_loss,
                 .host = c.offload_activations ? &host : nullptr,
                 .copies = copies.get()});
  const std::vector<MicroBatch> all = mesh_micro_batches(c);
  std::vector<MicroBatch> own;
  int64_t labels = 0;
  for (size_t g = 0; g < all.size(); ++g) {
    labels += all[g].valid_labels;
    if (static_cast<int>(g) % part.data_ranks() == part.data_rank()) own.push_back(all[g]);
  }
  ASSERT_TRUE(
      step.run({.micros = own, .global_micro_batches = c.micros, .global_valid_labels = labels},
               c.hooks ? c.hooks(part, compute) : MeshStep::Hooks()));
  gradients.finish();
  if (c.updates) {
    store.raise_version();
    gradients.gather_parameters();
  }
  const std::lock_guard lock(mutex);
  outcome.host_masters += host.ledger().peak(MemoryKind::master_weights);
  outcome.host_activations += host.ledger().peak(MemoryKind::activations);
  outcome.activations[world.rank()] = device.ledger().peak(MemoryKind::activations);
  take_told(part, step, world.rank(), outcome);
  for (const ParamRange& range : gradients.counted()) {
    const Param& p = store.params()[static_cast<size_t>(range.param)];
    put_elements(p, gradients.gradients(), range, outcome);
  }
}

inline MeshOutcome run_mesh(const MeshCase& c) {
  MeshOutcome outcome;
  std::mutex mutex;
  run_ranks(c.ranks, [&](Communicator& world) { run_mesh_rank(c, world, mutex, outcome); });
  // In the order of micro-batches, whichever rank came first.
  for (const auto& [who, told] : outcome.told) {
    outcome.loss += told[0];
    outcome.predictions.resize(std::max(outcome.predictions.size(), told.size() - 1));
    for (size_t k = 1; k < told.size(); ++k) outcome.predictions[k - 1] += told[k];
  }
  for (const auto& [name, counts] : outcome.counts) {
    EXPECT_EQ(std::count(counts.begin(), counts.end(), 1), static_cast<int64_t>(counts.size()))
        << name << " is not counted once everywhere";
  }
  return outcome;
}

inline double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

inline void expect_parity(const MeshOutcome& got, const MeshOutcome& want, double tolerance,
                          const std::string& what) {
  EXPECT_NEAR(got.loss, want.loss, tolerance / 10 * std::abs(want.loss)) << what;
  EXPECT_EQ(got.labels, want.labels) << what;
  ASSERT_EQ(got.predictions.size(), want.predictions.size()) << what;
  for (size_t i = 0; i < want.predictions.size(); ++i) {
    EXPECT_NEAR(got.predictions[i], want.predictions[i], tolerance * want.predictions[i]) << what;
  }
  ASSERT_EQ(got.gradients.size(), want.gradients.size()) << what;
  for (const auto& [name, g] : want.gradients) {
    EXPECT_LE(relative_distance(got.gradients.at(name), g), tolerance) << what << " " << name;
  }
}

}  // namespace shoestring
