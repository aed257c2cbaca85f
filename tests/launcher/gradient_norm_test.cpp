#include "launcher/gradient_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <set>

#include "core/random.h"
#include "parallel/comm/in_process.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

// The gradient of element i of the whole parameter, the same wherever it is.
float gradient_of(const RandomStream& random, int64_t i) {
  return static_cast<float>(random.normal(static_cast<uint64_t>(i)));
}

void fill_gradients(const ParamStore& store) {
  for (const Param& p : store.params()) {
    const RandomStream random(1, p.info.name);
    const ParamShard& s = p.info.shard;
    float* g = store.gradient(p).data<float>();
    const bool vector = p.info.shape.rank() == 1;
    const int64_t here = vector ? 1 : p.info.shape.columns();
    const int64_t all = vector || !s.cut() ? here : s.whole.columns();
    std::vector<RowRun> runs = s.rows;
    if (runs.empty()) runs = {{.local = 0, .global = 0, .count = p.elements / here}};
    for (const RowRun& run : runs) {
      for (int64_t r = 0; r < run.count; ++r) {
        for (int64_t i = 0; i < here; ++i) {
          g[(run.local + r) * here + i] =
              gradient_of(random, (run.global + r) * all + s.first_column + i);
        }
      }
    }
  }
}

struct Norms {
  double norm = 0, classes = 0;
};
Norms norms_of(const ModelConfig& model, const PartConfig& config, int ranks, int64_t zero) {
  std::mutex mutex;
  std::set<double> norms, classes;
  run_ranks(ranks, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    ModelPart part(model, config, world, device);
    ParamStore store(device, part.parameters(), Dtype::f32);
    const StepGradients gradients(
        part, store, stream, {.sharing = {.bucket_bytes = 8192, .zero_stage = zero}, .whole = {}});
    fill_gradients(store);
    const GradientNorm norm(part, store, gradients);
    const double own = norm.norm(world, stream);
    double squares = 0;
    for (const double s : norm.class_squares(world, stream)) squares += s;
    const std::lock_guard lock(mutex);
    norms.insert(own);
    classes.insert(std::sqrt(squares));
  });
  EXPECT_EQ(norms.size(), 1u) << "ranks disagree";
  EXPECT_EQ(classes.size(), 1u) << "ranks disagree";
  return {*norms.begin(), *classes.begin()};
}

TEST(GradientNorm, IsThatOfOneRank) {
  const PartConfig alone;
  ModelConfig model = families().back();
  model.layers = 4;
  const Norms one = norms_of(model, alone, 1, 0);
  double squares = 0;
  for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
    const RandomStream random(1, p.name);
    for (int64_t i = 0; i < p.shape.elements(); ++i) {
      const double g = static_cast<double>(gradient_of(random, i));
      squares += g * g;
    }
  }
  EXPECT_NEAR(one.norm, std::sqrt(squares), 1e-12 * std::sqrt(squares));
  for (const int64_t zero : {0, 1}) {
    EXPECT_EQ(norms_of(model, alone, 2, zero).norm, one.norm);
    EXPECT_EQ(norms_of(model, alone, 3, zero).norm, one.norm);
    PartConfig pipeline;
    pipeline.mesh.pp = 2;
    EXPECT_EQ(norms_of(model, pipeline, 4, zero).norm, one.norm);
    pipeline.schedule = "dualpipe";
    EXPECT_EQ(norms_of(model, pipeline, 2, zero).norm, one.norm);
    PartConfig tensor;
    tensor.mesh.tp = 2, tensor.mesh.ep = 2;
    const Norms cut = norms_of(model, tensor, 4, zero);
    EXPECT_NEAR(cut.norm, one.norm, 1e-13 * one.norm);
    EXPECT_NEAR(cut.classes, one.norm, 1e-12 * one.norm);
    tensor.mesh.etp = 2;
    const Norms slices = norms_of(model, tensor, 8, zero);
    EXPECT_NEAR(slices.norm, one.norm, 1e-13 * one.norm);
    EXPECT_NEAR(slices.classes, one.norm, 1e-12 * one.norm);
  }
}

// Rows of experts that begin at a unit keep their place, so that the blocks stay those of one rank.
TEST(GradientNorm, ExpertsKeepTheBitsOfOneRank) {
  ModelConfig model = families().back();
  model.hidden = 32;
  model.moe.ffn = 16;
  const PartConfig alone;
  PartConfig experts;
  experts.mesh.ep = 2;
  EXPECT_EQ(norms_of(model, experts, 4, 1).norm, norms_of(model, alone, 1, 0).norm);
}

}  // namespace
}  // namespace shoestring
