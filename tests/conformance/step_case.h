#pragma once
// Steps of small models under a layout, and when they equal those of one rank: the models, what
// their layouts must fit, a run in f64 and the judge.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "parallel/schedules/catalogue.h"
#include "tests/parallel/mesh_case.h"

namespace shoestring {

// Six layers, cut as evenly or not into one to six stages; heads, widths, experts and rows that
// two and four ranks divide.
inline ModelConfig step_model(const std::string& name) {
  ModelConfig m = small_model();
  m.layers = 6;
  if (name == "llama") return m;
  if (name == "qwen3") {
    m.qk_norm = true;
    m.head_dim = 8;
    m.tied_embeddings = true;
    return m;
  }
  // Wide router weights: rounding seldom changes who is chosen.
  m.init.hidden = 0.3;
  if (name == "mixtral") {
    m.moe = {.experts = 8, .chosen = 2, .ffn = 16};
    m.moe.balance = {.switch_loss = 0.3};
    return m;
  }
  check(name == "deepseek-v3", "a model of these tests");
  m.mla = {.kv_latent = 10, .q_latent = 12, .nope_dim = 6, .rope_dim = 4, .v_dim = 5};
  m.moe = {.experts = 8,
           .chosen = 3,
           .ffn = 12,
           .shared = 1,
           .first_dense = 1,
           .scores = "sigmoid",
           .groups = 4,
           .groups_chosen = 2,
           .scaling = 2.5};
  m.moe.balance = {.sequence = 0.5};
  m.mtp = {.depth = 1, .weight = 0.3};
  return m;
}

// What parallel/mesh_layouts.h is asked of a case.
inline LayoutQuestion question_of(const MeshCase& c) {
  const ModelConfig& m = c.model;
  LayoutQuestion q;
  q.config = c.part.mesh;
  q.ranks = c.ranks;
  q.model.layers = m.layers;
  q.model.heads = m.heads;
  q.model.kv_heads = m.mla.on() ? 0 : m.kv_heads;
  q.model.ffn = m.moe.on() && m.moe.first_dense == 0 ? 0 : m.ffn;
  q.model.shared_ffn = m.moe.shared * m.moe.ffn;
  q.model.experts = m.moe.experts;
  q.model.expert_ffn = m.moe.ffn;
  q.model.vocabulary = m.vocabulary;
  q.model.sequence = c.length;
  q.model.micro_batches = c.micros;
  q.model.context = c.part.context;
  q.model.equal_batches = c.zero_stage == 3;
  ScheduleRequest order{.name = c.part.schedule, .ranks = static_cast<int>(c.part.mesh.pp)};
  if (c.part.chunks > 0) order.chunks = c.part.chunks;
  q.model.schedule = needs_of(order);
  return q;
}

inline std::string text_of(const MeshCase& c) {
  const MeshConfig& m = c.part.mesh;
  return cat(c.ranks, " ranks: tp ", m.tp, " cp ", m.cp, " ep ", m.ep, " etp ", m.etp, " pp ", m.pp,
             " dp ", m.dp_shard, " x ", m.dp_replicate, " ", c.part.schedule, " order ", m.order,
             " nodes ", m.ranks_per_node);
}

// The micro-batches one after the other in f64, by one rank that knows no mesh.
inline MeshOutcome oracle_of(const MeshCase& c) {
  MeshOutcome outcome;
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  ParamStore store(device, parameters_of(c.model, whole_model(c.model)), Dtype::f64);
  store.initialise(1);
  StoreSource source(store);
  const Transformer model(c.model, store, whole_model(c.model));
  const std::vector<MicroBatch> micros = mesh_micro_batches(c);
  double labels = 0;
  for (const MicroBatch& m : micros) labels += static_cast<double>(m.valid_labels);
  for (const MicroBatch& m : micros) {
    const BatchTensors batch = to_device(device, m);
    Tape tape(stream, source, Tape::Mode::training);
    LayerContext context{
        .tape = tape, .batch = batch, .share = static_cast<double>(m.valid_labels) / labels};
    std::vector<PredictionResult> predictions;
    const HeadLoss::Result result = model.run(
        context, {.loss_scale = 1 / labels, .z_loss = c.z_loss, .predictions = &predictions});
    outcome.loss += result.loss_sum + result.penalty_sum;
    tape.backward();
  }
  for (const Param& p : store.params()) {
    const auto g = store.gradient(p).span<double>();
    std::vector<float>& values = outcome.gradients[p.info.name];
    for (const double x : g) values.push_back(static_cast<float>(x));
  }
  return outcome;
}

inline double gradient_norm(const MeshOutcome& outcome) {
  double squares = 0;
  for (const auto& [name, g] : outcome.gradients) {
    for (const float x : g) squares += static_cast<double>(x) * static_cast<double>(x);
  }
  return std::sqrt(squares);
}

// Exact mode has one order of all sums: the bits of one rank. Tensor and context ranks and slices
// of experts cut sums elsewhere.
inline bool must_be_equal(const MeshCase& c) {
  const MeshConfig& m = c.part.mesh;
  return c.exact && m.tp == 1 && m.cp == 1 && m.etp == 1;
}

// With weights so small that roundings do not grow from layer to layer.
inline void set_precision(MeshCase& c, Dtype dtype, const std::string& recipe = "bf16") {
  c.dtype = dtype;
  c.precision = recipe;
  if (dtype == Dtype::bf16) c.model.init.hidden = 0.02;
}

// One rank's steps, each run once.
class OneRank {
 public:
  const MeshOutcome& run(const MeshCase& c) {
    MeshCase alone = c;
    const PartConfig whole;
    alone.part = whole;
    alone.ranks = 1;
    alone.zero_stage = 0;
    alone.recompute = Recompute::none;  // changes no bit
    alone.offload_optimizer = alone.offload_activations = false;
    return known(runs_, key(alone), [&] { return run_mesh(alone); });
  }
  const MeshOutcome& truth(const MeshCase& c) {
    MeshCase plain = c;
    plain.exact = false;
    plain.dtype = Dtype::f64;
    plain.precision = "bf16";
    return known(truths_, key(plain), [&] { return oracle_of(plain); });
  }

 private:
  using Known = std::map<std::string, MeshOutcome>;
  template <class F>
  static const MeshOutcome& known(Known& from, const std::string& key, const F& make) {
    const auto found = from.find(key);
    return found != from.end() ? found->second : from.emplace(key, make()).first->second;
  }
  static std::string key(const MeshCase& c) {
    const ModelConfig& m = c.model;
    return cat(m.layers, " ", m.hidden, " ", m.heads, " ", m.kv_heads, " ", m.ffn, " ",
               m.moe.experts, " ", m.moe.capacity, " ", m.mla.kv_latent, " ", m.mtp.depth, " ",
               m.tied_embeddings, " ", m.init.hidden, " ", c.micros, " ", c.length, " ",
               c.documents, " ", name_of(c.dtype), " ", c.precision, " ", c.exact);
  }
  Known runs_, truths_;
};

inline double relative(double x, double of) { return std::abs(x - of) / std::abs(of); }

// Of all gradients together.
inline double gradient_distance(const MeshOutcome& a, const MeshOutcome& b) {
  std::vector<float> all_a, all_b;
  for (const auto& [name, g] : b.gradients) {
    const std::vector<float>& own = a.gradients.at(name);
    all_a.insert(all_a.end(), own.begin(), own.end());
    all_b.insert(all_b.end(), g.begin(), g.end());
  }
  return relative_distance(all_a, all_b);
}

// Narrow types: 1.5 times as far from f64 as one rank is. All gradients together keep to that as it
// stands. A figure of few numbers may by chance be near where one rank ran; it may be as far as 1.5
// times
//   the loss       1e-3 of itself
//   the norm       a quarter of one rank's distance of all gradients
//   a parameter    one rank's distance of all gradients, or 0.02, five roundings of bf16; with
//                  experts 0.08, for a token that rounding sends to another expert, or drops in the
//                  place of another, changes the gradients of both; in FP8 0.08 too, a little more
//                  than a rounding of E4M3.
//                  1 + 1 / sqrt(n) more for n elements: as far apart may the norms of two samples
//                  of n errors be
inline void expect_near_truth(const MeshOutcome& got, const MeshOutcome& one,
                              const MeshOutcome& truth, double floor) {
  const auto limit = [](double apart, double least) { return 1.5 * std::max(apart, least); };
  const double of_one = gradient_distance(one, truth), norm = gradient_norm(truth);
  EXPECT_GT(of_one, 1e-3) << "nothing was rounded";
  EXPECT_LE(gradient_distance(got, truth), limit(of_one, 0));
  EXPECT_LE(relative(got.loss, truth.loss), limit(relative(one.loss, truth.loss), 1e-3));
  EXPECT_LE(relative(gradient_norm(got), norm),
            limit(relative(gradient_norm(one), norm), of_one / 4));
  ASSERT_EQ(got.gradients.size(), one.gradients.size());
  for (const auto& [name, g] : truth.gradients) {
    const double alone = relative_distance(one.gradients.at(name), g);
    const double chance = 1 + 1 / std::sqrt(static_cast<double>(g.size()));
    EXPECT_LE(relative_distance(got.gradients.at(name), g),
              chance * limit(alone, std::max(of_one, floor)))
        << name << ", one rank: " << alone;
  }
}

inline void expect_step_parity(const MeshCase& c, OneRank& alone) {
  const MeshOutcome& one = alone.run(c);
  const MeshOutcome got = run_mesh(c);
  EXPECT_EQ(got.host_masters > 0, c.offload_optimizer);
  EXPECT_EQ(got.host_activations > 0, c.offload_activations);
  if (must_be_equal(c)) {
    EXPECT_EQ(got.loss, one.loss);
    EXPECT_EQ(got.predictions, one.predictions);
    for (const auto& [name, g] : one.gradients) {
      EXPECT_TRUE(got.gradients.at(name) == g)
          << name << " has other bits than one rank's, apart by "
          << relative_distance(got.gradients.at(name), g);
    }
    return;
  }
  if (c.dtype == Dtype::bf16) {
    const double floor = c.precision != "bf16" || c.model.moe.on() ? 0.08 : 0.02;
    return expect_near_truth(got, one, alone.truth(c), floor);
  }
  expect_parity(got, one, 1e-5, "f32");
  EXPECT_LE(relative(gradient_norm(got), gradient_norm(one)), 1e-6);
}

}  // namespace shoestring
