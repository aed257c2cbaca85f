#include "parallel/model_stages.h"

#include <gtest/gtest.h>

#include <mutex>

#include "core/fp8/layer.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

ModelConfig deep_model(int64_t layers) {
  ModelConfig model = small_model();
  model.layers = layers;
  return model;
}

std::vector<MicroBatch> micro_batches(const ModelConfig& model, int count) {
  std::vector<MicroBatch> list;
  for (int i = 0; i < count; ++i) {
    MicroBatch m = some_rows(model.vocabulary, 8 + 2 * (i % 3));
    for (size_t t = 0; t < m.tokens.size(); ++t) {
      m.tokens[t] = static_cast<int32_t>((m.tokens[t] + 7 * i) % model.vocabulary);
    }
    list.push_back(m);
  }
  return list;
}

struct Outcome {
  std::vector<double> losses;  // by micro-batch, prediction modules' behind the main one
  std::map<std::string, std::vector<float>> gradients;
  double norm() const {
    double sum = 0;
    for (const auto& [name, g] : gradients) {
      for (const float x : g) sum += static_cast<double>(x) * x;
    }
    return std::sqrt(sum);
  }
};

struct Setting {
  ModelConfig model;
  Dtype dtype = Dtype::f32;
  std::string precision = "bf16";  // recipe
  Recompute recompute = Recompute::none;
  bool exact = true;
};

std::vector<float> floats_of(const Tensor& t) {
  return {t.span<float>().begin(), t.span<float>().end()};
}

// One rank's share of a step under a schedule; all stages on one rank when it is alone.
void run_rank(Communicator& pipeline, const Setting& setting, const Schedule& schedule,
              const std::vector<int64_t>& split, std::mutex& mutex, Outcome& outcome) {
  const ModelConfig& model = setting.model;
  const std::vector<Chunk> chunks = cut(model, split);
  Device device(DeviceKind::cpu, 0, 1);
  Stream compute = Stream::immediate(device);
  const std::vector<int> stages = stages_of(schedule.where, pipeline.rank());
  ParamStore store(device, parameters_of(model, chunks, stages), setting.dtype);
  store.initialise(1);
  StoreSource source(store);
  std::unique_ptr<Fp8Plan> plan;
  if (setting.precision != "bf16") {
    PrecisionConfig precision;
    precision.recipe = setting.precision;
    plan = std::make_unique<Fp8Plan>(resolve(precision), store, model.layers);
  }
  ModelStages work({model, chunks, schedule.where, pipeline.rank()}, store, source, compute,
                   {.recompute = setting.recompute, .fp8 = plan.get(), .exact = setting.exact});
  PipelineEngine engine(pipeline, compute, schedule);
  const std::vector<MicroBatch> micros = micro_batches(model, schedule.where.micros);
  std::vector<BatchTensors> tensors;
  int64_t labels = 0;
  for (const MicroBatch& m : micros) {
    tensors.push_back(to_device(device, m));
    labels += m.valid_labels;
  }
  const double scale = 1.0 / static_cast<double>(labels);
  work.begin(tensors, scale, std::vector<double>(micros.size(), scale));
  engine.run(work);
  const std::lock_guard lock(mutex);
  for (const Param& p : store.params()) {
    std::vector<float> g = floats_of(store.gradient(p));
    auto [at, fresh] = outcome.gradients.emplace(p.info.name, g);
    for (size_t i = 0; !fresh && i < g.size(); ++i) at->second[i] += g[i];
  }
  for (size_t m = 0; m < micros.size(); ++m) {
    const StageResult& r = work.results()[m];
    if (r.main.count == 0) continue;
    outcome.losses.resize(micros.size());
    outcome.losses[m] = r.main.loss_sum;
    for (const PredictionResult& p : r.predictions) outcome.losses[m] += 0.1 * p.loss_sum;
  }
}

Outcome run_pipeline(const Setting& setting, const Schedule& schedule,
                     const std::vector<int64_t>& split) {
  Outcome outcome;
  std::mutex mutex;
  run_ranks(schedule.where.ranks, [&](Communicator& pipeline) {
    run_rank(pipeline, setting, schedule, split, mutex, outcome);
  });
  return outcome;
}

Outcome run_alone(const Setting& setting, int micros) {
  const Schedule s = add_transfers(make_schedule({.name = "gpipe", .ranks = 1, .micros = micros}));
  return run_pipeline(setting, s, {setting.model.layers});
}

int stages_for(const Schedule& s) { return s.where.stages(); }

// A stage's gradients are the same sums in the same order, so every bit is.
void expect_equal(const Outcome& got, const Outcome& want, const std::string& what) {
  EXPECT_EQ(got.losses, want.losses) << what;
  ASSERT_EQ(got.gradients.size(), want.gradients.size()) << what;
  for (const auto& [name, g] : want.gradients) {
    EXPECT_EQ(got.gradients.at(name), g) << what << " " << name;
  }
}

TEST(ModelStages, EveryOrderHasTheBitsOfOneRank) {
  for (const ScheduleEntry& entry : schedule_entries()) {
    if (entry.name == "dualpipe") continue;  // two copies of each stage: below
    const Setting setting{.model = deep_model(8)};
    const Schedule s = add_transfers(make_schedule({.name = entry.name, .ranks = 4, .micros = 8}));
    expect_equal(run_pipeline(setting, s, even_split(setting.model, stages_for(s))),
                 run_alone(setting, 8), entry.name);
  }
}

TEST(ModelStages, EveryFamilyAndPolicyHasTheBitsOfOneRank) {
  for (ModelConfig model : families()) {
    if (model.tied_embeddings || model.mtp.depth > 0) continue;  // two holders: below
    model.layers = 5;
    for (const Recompute recompute : {Recompute::none, Recompute::norms, Recompute::block}) {
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        const Setting setting{.model = model, .dtype = dtype, .recompute = recompute};
        const Schedule s = add_transfers(make_schedule({.name = "zb-h1", .ranks = 3, .micros = 6}));
        expect_equal(run_pipeline(setting, s, {1, 3, 1}), run_alone(setting, 6),
                     cat(model.layers, " ", static_cast<int>(recompute)));
      }
    }
  }
}

// Sums of two holders come in another order than one holder's: equal to rounding.
void expect_close(const Outcome& got, const Outcome& want, double tolerance,
                  const std::string& what) {
  EXPECT_EQ(got.losses, want.losses) << what;
  for (const auto& [name, g] : want.gradients) {
    double difference = 0, norm = 0;
    const std::vector<float>& other = got.gradients.at(name);
    for (size_t i = 0; i < g.size(); ++i) {
      difference += (static_cast<double>(g[i]) - other[i]) * (static_cast<double>(g[i]) - other[i]);
      norm += static_cast<double>(g[i]) * g[i];
    }
    EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(norm)) << what << " " << name;
  }
}

TEST(ModelStages, CopiesOfAParameterAddUp) {
  ModelConfig tied = deep_model(4);
  tied.tied_embeddings = true;
  ModelConfig further = deep_model(4);
  further.mtp = {.depth = 2, .weight = 0.3};
  for (const ModelConfig& model : {tied, further}) {
    for (const char* name : {"1f1b", "dualpipe", "zb-v"}) {
      const Setting setting{.model = model};
      const Schedule s = add_transfers(make_schedule({.name = name, .ranks = 2, .micros = 4}));
      expect_close(run_pipeline(setting, s, even_split(model, stages_for(s))),
                   run_alone(setting, 4), 1e-6, name);
    }
  }
}

TEST(ModelStages, DualPipeSumsOverBothCopies) {
  const Setting setting{.model = deep_model(4)};
  const Schedule s = add_transfers(make_schedule({.name = "dualpipe", .ranks = 4, .micros = 8}));
  expect_close(run_pipeline(setting, s, even_split(setting.model, 4)), run_alone(setting, 8), 1e-6,
               "dualpipe");
}

TEST(ModelStages, Fp8HasTheBitsOfOneRank) {
  ModelConfig model = deep_model(4);
  model.hidden = 128;
  model.ffn = 160;
  const Setting setting{.model = model, .dtype = Dtype::bf16, .precision = "deepseek_v3"};
  const Schedule s = add_transfers(make_schedule({.name = "zb-v", .ranks = 2, .micros = 4}));
  expect_equal(run_pipeline(setting, s, {1, 1, 1, 1}), run_alone(setting, 4), "fp8");
}

TEST(EvenSplit, SharesLayersOut) {
  EXPECT_EQ(even_split(deep_model(7), 3), (std::vector<int64_t>{3, 2, 2}));
  EXPECT_EQ(even_split(deep_model(4), 4), (std::vector<int64_t>{1, 1, 1, 1}));
  EXPECT_THROW(even_split(deep_model(3), 4), Error);
}

}  // namespace
}  // namespace shoestring
