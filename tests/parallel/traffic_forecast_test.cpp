#include "parallel/traffic_forecast.h"

#include <optional>

#include "core/ops/drop_choices.h"

#include "parallel/comm/counting.h"
#include "tests/parallel/mesh_case.h"
#include "tests/parallel/mesh_layout_lists.h"

namespace shoestring {
namespace {

struct Counted {
  TrafficForecast sent;
  std::map<std::string, ExpertTraffic> experts;
};

// What a step really sends, and the rows that its routers sent.
Counted count(const MeshCase& c) {
  Counted counted;
  const auto traffic = std::make_shared<Traffic>();
  MeshOutcome outcome;
  std::mutex mutex;
  run_ranks(c.ranks, [&](Communicator& world) {
    const std::unique_ptr<Communicator> counting_world = counting(world, traffic);
    run_mesh_rank(c, *counting_world, mutex, outcome);
  });
  for (int op = 0; op < num_call_ops; ++op) {
    counted.sent.bytes_sent[static_cast<size_t>(op)] = traffic->bytes(static_cast<Call::Op>(op));
  }
  counted.experts = outcome.experts;
  return counted;
}

StepFacts facts_of(const MeshCase& c) {
  StepFacts facts{.model = c.model,
                  .part = c.part,
                  .ranks = c.ranks,
                  .dtype = c.dtype,
                  .sharing = {.bucket_bytes = 8192, .zero_stage = c.zero_stage, .exact = c.exact},
                  .recompute = c.recompute,
                  .micro_batches = c.micros,
                  .sequences = 2,
                  .length = c.length,
                  .updates = c.updates};
  facts.rows_without_labels = rows_without_labels(facts, mesh_micro_batches(c));
  return facts;
}

void expect_same(const TrafficForecast& forecast, const TrafficForecast& sent,
                 const std::string& what) {
  for (int i = 0; i < num_call_ops; ++i) {
    const auto op = static_cast<Call::Op>(i);
    EXPECT_EQ(forecast.bytes(op), sent.bytes(op)) << name_of(op) << " of " << what;
  }
}

std::string text_of(const MeshCase& c) {
  return cat(name_of(c.dtype), c.exact ? ", exact" : "", ", zero ", c.zero_stage, ", recompute ",
             static_cast<int>(c.recompute));
}

std::optional<Fp8Recipe> recipe_of(const MeshCase& c) {
  PrecisionConfig precision;
  precision.recipe = c.precision;
  precision.first_layers_bf16 = c.first_layers_bf16;
  return precision.on() ? std::optional(resolve(precision)) : std::nullopt;
}

void expect_forecast(const MeshCase& c, const std::string& what, bool loads = false) {
  const Counted counted = count(c);
  const std::optional<Fp8Recipe> recipe = recipe_of(c);
  StepFacts facts = facts_of(c);
  facts.experts = counted.experts;
  facts.fp8 = recipe ? &*recipe : nullptr;
  facts.loads = loads;
  expect_same(forecast_traffic(facts), counted.sent, cat(what, ", ", text_of(c)));
}

// As many micro-batches as any schedule needs, and no multiple of three.
MeshCase case_of(const ModelConfig& model, const Layout& l) {
  MeshCase c;
  c.model = model;
  c.part = l.part;
  c.ranks = l.ranks;
  const int64_t pp = l.part.mesh.pp;
  const auto data = static_cast<int64_t>(l.ranks) / (pp * l.part.mesh.tp * l.part.mesh.cp);
  c.micros = static_cast<int>(std::max<int64_t>(8, 2 * pp * data));
  return c;
}

// Type, exactness and recompute, eight settings in all.
void set(MeshCase& c, size_t setting) {
  c.dtype = setting & 1 ? Dtype::bf16 : Dtype::f32;
  c.exact = (setting & 2) != 0;
  c.recompute = (setting & 4) != 0 ? Recompute::block : Recompute::none;
}

// Each family meets each layout under some of the settings, all families together under all.
template <class Wanted>
void expect_families(const std::vector<Layout>& layouts, Wanted wanted) {
  std::vector<ModelConfig> models;
  for (const ModelConfig& family : families()) {
    if (wanted(family)) models.push_back(deep(family));
  }
  ASSERT_GE(models.size(), 2u);
  const size_t each = (8 + models.size() - 1) / models.size();
  for (size_t m = 0; m < models.size(); ++m) {
    for (size_t l = 0; l < layouts.size(); ++l) {
      MeshCase c = case_of(models[m], layouts[l]);
      for (size_t k = 0; k < each; ++k) {
        set(c, (m * each + k + l) % 8);
        expect_forecast(c, cat("model ", m, ", ", layouts[l].name));
      }
    }
  }
}

TEST(TrafficForecast, DenseModels) {
  expect_families(dense_layouts(), [](const ModelConfig& m) { return !m.moe.on() && !m.mla.on(); });
}

TEST(TrafficForecast, LatentAttention) {
  expect_families(dense_layouts(), [](const ModelConfig& m) { return !m.moe.on() && m.mla.on(); });
}

TEST(TrafficForecast, SparseModels) {
  expect_families(sparse_layouts(), [](const ModelConfig& m) { return m.moe.on(); });
}

// Attention alone made again: what lies before its core differs by kind, and in FP8 nobody reads
// what all-to-all brings home again.
TEST(TrafficForecast, RecomputeOfAttention) {
  for (const ModelConfig& family : families()) {
    for (const Layout& l :
         {layout("tp 2 cp 2", 4, mesh(2, 2, 1)),
          layout("tp 2 all-to-all 2", 4, mesh(2, 2, 1), "1f1b", ContextKind::all_to_all)}) {
      MeshCase c = case_of(family, l);
      c.micros = 2;
      for (const char* precision : {"bf16", "deepseek_v3", "per_tensor"}) {
        c.precision = precision;
        c.dtype = c.precision == "bf16" ? Dtype::f32 : Dtype::bf16;
        c.first_layers_bf16 = c.precision == "bf16" ? 0 : 1;
        for (const Recompute recompute :
             {Recompute::attention, Recompute::block, Recompute::norms, Recompute::swiglu}) {
          c.recompute = recompute;
          expect_forecast(c, cat(l.name, ", ", precision));
        }
      }
    }
  }
}

// A rank turns from micro-batch to micro-batch as its program says.
TEST(TrafficForecast, AllToAllInPipelines) {
  const ModelConfig llama = deep(families()[0]), latent = deep(families()[4]);
  for (const char* schedule : {"1f1b", "interleaved-1f1b", "zb-v", "dualpipe", "dualpipev"}) {
    const Layout l = layout(schedule, 4, mesh(1, 2, 2), schedule, ContextKind::all_to_all);
    for (const ModelConfig& model : {llama, latent}) expect_forecast(case_of(model, l), schedule);
  }
  MeshCase c =
      case_of(llama, layout("tp 2 pp 2 cp 2", 8, mesh(2, 2, 2), "zb-v", ContextKind::all_to_all));
  c.part.blocks = {2, 0, 1, 1};
  expect_forecast(c, "a stage without blocks");
}

// Gradients of stage 2 are reduced once a micro-batch, weights of stage 3 gathered for each pass.
TEST(TrafficForecast, SharedGradientsAndWeights) {
  const ModelConfig tied = deep(families()[1]), sparse = deep(families().back());
  for (const bool exact : {false, true}) {
    for (const int64_t zero : {2, 3}) {
      for (const char* schedule : {"1f1b", "zb-v", "dualpipe"}) {
        for (const Layout& l : {layout("dp 2", 2, mesh(1, 1, 1)),
                                replicated(layout("tp 2 dp 2 x 2", 8, mesh(2, 1, 1)), 2),
                                layout("dp 2", 4, mesh(1, 1, 2), schedule),
                                layout("ep 2 dp 2", 4, mesh(1, 1, 2, 2), schedule)}) {
          MeshCase c = case_of(l.part.mesh.ep > 1 ? sparse : tied, l);
          c.dtype = Dtype::bf16, c.exact = exact, c.zero_stage = zero, c.updates = true;
          expect_forecast(c, cat(l.name, ", ", schedule));
        }
        MeshCase c = case_of(sparse, layout("ep 2 dp 4", 4, mesh(1, 1, 1, 2)));
        c.exact = exact, c.zero_stage = zero, c.updates = true;
        expect_forecast(c, "ep 2 dp 4");
      }
    }
  }
}

// Not every rank has a micro-batch in the last slot.
TEST(TrafficForecast, UnevenBatchesInExactMode) {
  for (const int64_t zero : {0, 1, 2}) {
    for (const int64_t ranks : {2, 3, 4}) {
      MeshCase c = case_of(deep(families()[1]), layout("uneven", static_cast<int>(ranks), {}));
      c.micros = 7, c.exact = true, c.zero_stage = zero, c.updates = true;
      expect_forecast(c, cat("7 micro-batches on ", ranks, ", stage ", zero));
    }
  }
}

TEST(TrafficForecast, SharedStateOfTheOptimiser) {
  ModelConfig tied = deep(families()[1]);
  ModelConfig sparse = deep(families().back());
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (const bool exact : {false, true}) {
      for (const int64_t zero : {0, 1}) {
        for (const Layout& l :
             {layout("dp 3", 3, mesh(1, 1, 1)), layout("tp 4 dp 2", 8, mesh(4, 1, 1)),
              layout("dualpipe dp 2", 4, mesh(1, 1, 2), "dualpipe")}) {
          MeshCase c = case_of(tied, l);
          c.dtype = dtype, c.exact = exact, c.zero_stage = zero, c.updates = true;
          expect_forecast(c, l.name);
        }
        MeshCase c = case_of(sparse, layout("ep 2 dp 4", 4, mesh(1, 1, 1, 2)));
        c.dtype = dtype, c.exact = exact, c.zero_stage = zero, c.updates = true;
        expect_forecast(c, "ep 2 dp 4");
      }
    }
  }
}

TEST(TrafficForecast, ExpertsOnTwoLevels) {
  ModelConfig model = deep(families()[8]);
  model.moe.first_dense = 2;
  for (const Recompute recompute : {Recompute::none, Recompute::block}) {
    MeshCase c = case_of(model, layout("ep 4 on 2 nodes", 4, mesh(1, 1, 1, 4)));
    c.part.mesh.ranks_per_node = 2;
    c.recompute = recompute;
    const Counted counted = count(c);
    const ExpertTraffic& rows = counted.experts.at("layers.3");
    EXPECT_GT(rows.tokens, 0);
    EXPECT_GT(rows.choices, rows.tokens);
    EXPECT_GT(rows.choices, rows.choices_across);
    EXPECT_GT(rows.choices_across, 0);
    expect_forecast(c, "ep 4 on 2 nodes");
    c = case_of(model, layout("ep 4 etp 2 on 2 nodes", 8, mesh(1, 1, 1, 4, 2)));
    c.part.mesh.ranks_per_node = 4;
    c.recompute = recompute;
    EXPECT_GT(count(c).experts.at("layers.3").given, 0);
    expect_forecast(c, "ep 4 etp 2 on 2 nodes");
  }
}

// What travels is then known without the routing: a rank has 2 sequences of tokens, and what an
// expert takes of them.
TEST(TrafficForecast, FixedRowsOnTwoLevels) {
  ModelConfig model = deep(families()[8]);
  model.moe.capacity = 1;
  for (const bool sums : {false, true}) {
    for (const int64_t slices : {1, 2}) {
      MeshCase c =
          case_of(model, layout("fixed", static_cast<int>(4 * slices), mesh(1, 1, 1, 4, slices)));
      c.part.mesh.ranks_per_node = 2 * slices;
      c.part.fixed_rows = true;
      c.part.sum_in_nodes = sums;
      const int64_t T = 2 * c.length, E = model.moe.experts, K = model.moe.chosen;
      const int64_t f = std::min(rows_of_capacity({.experts = E, .capacity = 1}, T * K), T);
      const int64_t across = std::min(T, f * E / 2), inside = 2 * f * E / 4;
      const auto passes = static_cast<int64_t>(c.micros);  // one a rank at a time
      const ExpertTraffic& rows = count(c).experts.at("layers.3");
      EXPECT_EQ(rows.tokens, passes * (across + inside));
      EXPECT_EQ(rows.choices_across, passes * std::min(T * K, f * E / 2));
      EXPECT_EQ(rows.choices, rows.choices_across + passes * inside);
      EXPECT_EQ(rows.given, passes * (slices - 1) * f * E);
      expect_forecast(c, cat(slices, " slices", sums ? ", sums in nodes" : ""));
    }
  }
}

// Codes there, also of gradients, and the compute type home; the first block stays bf16.
TEST(TrafficForecast, ExpertsInFp8) {
  ModelConfig model = deep(families().back());
  model.moe.first_dense = 0;
  for (const char* recipe : {"deepseek_v3", "per_tensor"}) {
    for (const Layout& l :
         {layout("ep 2", 2, mesh(1, 1, 1, 2)), layout("tp 2 ep 2", 2, mesh(2, 1, 1, 2)),
          layout("tp 2 ep 2 etp 2", 4, mesh(2, 1, 1, 2, 2))}) {
      for (const Recompute recompute : {Recompute::none, Recompute::block}) {
        MeshCase c = case_of(model, l);
        c.dtype = Dtype::bf16;
        c.precision = recipe;
        c.first_layers_bf16 = 1;
        c.recompute = recompute;
        expect_forecast(c, cat(recipe, ", ", l.name));
      }
    }
  }
}

// As launcher/step_routing.h sums them.
TEST(TrafficForecast, LoadsOfExperts) {
  const ModelConfig model = deep(families().back());
  const auto blocks = static_cast<int64_t>(states_of(model, whole_model(model)).size());
  for (const Layout& l : sparse_layouts()) {
    MeshCase c = case_of(model, l);
    c.hooks = [&](ModelPart& part, Stream& compute) {
      const auto sum = [&part, &compute, count = blocks * (model.moe.experts + 1)] {
        std::vector<double> loads(static_cast<size_t>(count));
        part.statistics().all_reduce(buffer_of(std::span(loads)), Reduce::sum, compute);
        compute.synchronize();
      };
      MeshStep::Hooks hooks;
      hooks.forward_done = [sum](Tape&, int, size_t, const StageResult*) { sum(); };
      hooks.no_micro_batch = sum;
      return hooks;
    };
    expect_forecast(c, l.name, true);
  }
}

TEST(TrafficForecast, ModulesLackLabelsWhereTheMainModelHasSome) {
  MeshCase c = case_of(deep(families()[4]), layout("tp 2 ring 4", 8, mesh(2, 4, 1)));
  c.micros = 16;
  EXPECT_GT(facts_of(c).rows_without_labels, 0);
  expect_forecast(c, "tp 2 ring 4");
}

// The formulas of the header with numbers: one micro-batch, two tensor ranks.
TEST(TrafficForecast, OfTwoTensorRanksByHand) {
  const ModelConfig m = small_model();  // 2 blocks, d = 24, V = 50
  const StepFacts facts{.model = m,
                        .part = {.mesh = mesh(2, 1, 1)},
                        .ranks = 2,
                        .dtype = Dtype::bf16,
                        .sequences = 3,
                        .length = 16};
  const TrafficForecast f = forecast_traffic(facts);
  const int64_t row = 2 * 24, rows = 3 * 16 / 2;  // bytes of a row; rows that a rank sends
  // A gather or a scatter each: embedding, two a sub-layer, head.
  const int64_t crossings = 1 + 2 * 4 + 1;
  EXPECT_EQ(f.bytes(Call::Op::reduce_scatter), 2 * crossings * rows * row);
  EXPECT_EQ(f.bytes(Call::Op::all_gather), 2 * (crossings * rows * row + 32 * 48));
  // Five gains of 24 elements.
  EXPECT_EQ(f.bytes(Call::Op::all_reduce), 2 * 8 * 5 * 24 / 2);
  EXPECT_EQ(f.bytes(Call::Op::all_to_all) + f.bytes(Call::Op::exchange), 0);
}

TEST(TrafficForecast, AsksForTheRowsOfExperts) {
  StepFacts facts{.model = families().back(), .part = {.mesh = mesh(1, 1, 1, 2)}, .ranks = 2};
  facts.length = 16;
  EXPECT_THROW(forecast_traffic(facts), Error);
}

}  // namespace
}  // namespace shoestring
