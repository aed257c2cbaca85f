// Passes in parts, interleaved, with rows of experts that travel between ranks: every bit of losses
// and gradients is that of the same schedule with whole passes.

#include "parallel/stage_segments.h"

#include <gtest/gtest.h>

#include <mutex>

#include "core/fp8/layer.h"
#include "core/text.h"
#include "parallel/comm/by_stream.h"
#include "parallel/comm/in_process.h"
#include "parallel/expert_exchange.h"
#include "parallel/model_stages.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

struct Setting {
  ModelConfig model;
  Dtype dtype = Dtype::f32;
  std::string recipe = "bf16";
  Recompute recompute = Recompute::none;
  std::string schedule = "dualpipe";
  int ranks = 2, expert_ranks = 1, micros = 6;

  std::string text() const {
    return cat(schedule, " of ", model.layers, " layers, ", model.moe.experts, " experts on ",
               expert_ranks, " ranks, ", recipe, ", dtype ", static_cast<int>(dtype),
               ", recompute ", static_cast<int>(recompute), model.tied_embeddings ? ", tied" : "");
  }
  Schedule whole() const {
    Schedule s = make_schedule({.name = schedule, .ranks = ranks, .micros = micros});
    if (schedule == "1f1b") s = pair_overlap(std::move(s));
    return add_transfers(std::move(s));
  }
  std::vector<Chunk> chunks(const Schedule& s) const {
    return cut(model, even_split(model, s.where.stages()));
  }
  Schedule in_parts() const {
    const Schedule s = whole();
    StepTimes times;
    for (size_t k = 0; k < segment_kinds; ++k) {
      times.segments[k] = {1, 1, travels(static_cast<SegmentKind>(k)) ? 0.0 : 1.0};
    }
    return split_segments(s, segments_of(model, chunks(s)), times);
  }
};

// By world rank and name.
struct Outcome {
  std::map<std::string, std::vector<float>> gradients;
  std::map<std::string, std::vector<double>> losses;
  int64_t parts = 0;
  bool operator==(const Outcome& o) const { return gradients == o.gradients && losses == o.losses; }
};

class Rank {
 public:
  Rank(Communicator& world, const Setting& setting, const Schedule& schedule)
      : world_(world),
        setting_(setting),
        schedule_(schedule),
        place_(world.rank() % setting.expert_ranks),
        pipeline_(world.split(place_, world.rank())),
        usual_(world.split(pipeline_->rank(), world.rank())),
        other_(world.split(pipeline_->rank(), world.rank())),
        engine_(*pipeline_, compute_, schedule) {
    backward_ = engine_.backward_stream();
    rows_ = by_stream(*usual_, *other_, &backward_);
    if (setting.model.moe.experts > 0) {
      exchange_ = std::make_unique<ExpertExchange>(
          ExpertGroup{.experts = setting.model.moe.experts, .ranks = rows_.get()});
    }
  }

  void run(std::mutex& mutex, Outcome& outcome) {
    const ModelConfig& model = setting_.model;
    const std::vector<Chunk> chunks = setting_.chunks(schedule_);
    ParamStore store(device_, parameters(chunks), setting_.dtype);
    store.initialise(1);
    StoreSource source(store);
    std::unique_ptr<Fp8Plan> plan;
    if (setting_.recipe != "bf16") {
      PrecisionConfig precision;
      precision.recipe = setting_.recipe;
      plan = std::make_unique<Fp8Plan>(resolve(precision), store, model.layers);
    }
    ModelStages work({model, chunks, schedule_.where, pipeline_->rank()}, store, source, compute_,
                     {.recompute = setting_.recompute,
                      .fp8 = plan.get(),
                      .exact = true,
                      .tokens = exchange_.get()});
    const auto micros = static_cast<size_t>(setting_.micros);
    std::vector<BatchTensors> tensors;
    for (size_t i = 0; i < micros; ++i) tensors.push_back(to_device(device_, micro(i)));
    work.begin(tensors, 0.01, std::vector<double>(micros, 0.01));
    engine_.run(work);
    const std::lock_guard lock(mutex);
    const std::string me = cat("rank ", world_.rank(), " ");
    for (const Param& p : store.params()) {
      const auto g = store.gradient(p).span<float>();
      outcome.gradients[me + p.info.name] = {g.begin(), g.end()};
    }
    for (const StageResult& r : work.results()) {
      outcome.losses[me].push_back(r.main.loss_sum);
      for (const PredictionResult& p : r.predictions) outcome.losses[me].push_back(p.loss_sum);
    }
    for (const Instruction& i : schedule_.ranks[static_cast<size_t>(pipeline_->rank())]) {
      outcome.parts += i.whole() ? 0 : 1;
    }
  }

 private:
  std::vector<ParamInfo> parameters(const std::vector<Chunk>& chunks) const {
    auto list =
        parameters_of(setting_.model, chunks, stages_of(schedule_.where, pipeline_->rank()));
    for (ParamInfo& p : list) {
      if (is_of_experts(p)) p.shape = {p.shape[0] / setting_.expert_ranks, p.shape[1]};
    }
    return list;
  }
  MicroBatch micro(size_t i) const {
    const int64_t vocabulary = setting_.model.vocabulary;
    MicroBatch m = some_rows(vocabulary, 8);
    const auto by = static_cast<int64_t>(7 * i) + 3 * place_;
    for (int32_t& t : m.tokens) t = static_cast<int32_t>((t + by) % vocabulary);
    return m;
  }

  Communicator& world_;
  const Setting& setting_;
  const Schedule& schedule_;
  int place_;
  Device device_{DeviceKind::cpu, 0, 1};
  Stream compute_ = Stream::immediate(device_);
  const Stream* backward_ = nullptr;
  std::unique_ptr<Communicator> pipeline_, usual_, other_, rows_;
  PipelineEngine engine_;
  std::unique_ptr<ExpertExchange> exchange_;
};

Outcome run(const Setting& setting, const Schedule& schedule) {
  Outcome outcome;
  std::mutex mutex;
  run_ranks(setting.ranks * setting.expert_ranks,
            [&](Communicator& world) { Rank(world, setting, schedule).run(mutex, outcome); });
  return outcome;
}

void expect_the_same_bits(const Setting& setting) {
  const Outcome whole = run(setting, setting.whole()), parts = run(setting, setting.in_parts());
  EXPECT_EQ(whole.parts, 0);
  EXPECT_GT(parts.parts, 20) << setting.text();
  EXPECT_EQ(whole.losses, parts.losses) << setting.text();
  ASSERT_EQ(whole.gradients.size(), parts.gradients.size());
  for (const auto& [name, g] : whole.gradients) {
    EXPECT_EQ(parts.gradients.at(name), g) << setting.text() << " " << name;
  }
}

ModelConfig dense(int64_t layers) {
  ModelConfig model = small_model();
  model.layers = layers;
  return model;
}

// The look-alike of DeepSeek-V3, a prediction module included.
ModelConfig sparse(int64_t layers) {
  ModelConfig model = families().back();
  model.layers = layers;
  return model;
}

TEST(SegmentsOfStages, DenseModelsHaveTheBitsOfWholePasses) {
  for (const bool tied : {false, true}) {
    for (const char* schedule : {"dualpipe", "dualpipev", "1f1b"}) {
      for (const Recompute recompute : {Recompute::none, Recompute::block}) {
        Setting setting{.model = dense(8), .recompute = recompute, .schedule = schedule};
        setting.model.tied_embeddings = tied;
        expect_the_same_bits(setting);
      }
    }
  }
}

TEST(SegmentsOfStages, ExpertsOnTwoRanksHaveTheBitsOfWholePasses) {
  for (const char* schedule : {"dualpipe", "dualpipev", "1f1b"}) {
    for (const Recompute recompute :
         {Recompute::none, Recompute::swiglu, Recompute::norms, Recompute::block}) {
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        Setting setting{.model = sparse(4),
                        .dtype = dtype,
                        .recompute = recompute,
                        .schedule = schedule,
                        .expert_ranks = 2};
        setting.model.tied_embeddings = dtype == Dtype::bf16;
        expect_the_same_bits(setting);
      }
    }
  }
}

TEST(SegmentsOfStages, ExpertsOnFourRanksOfFourStages) {
  expect_the_same_bits(
      {.model = sparse(8), .schedule = "dualpipev", .ranks = 4, .expert_ranks = 4, .micros = 9});
}

TEST(SegmentsOfStages, Fp8HasTheBitsOfWholePasses) {
  for (const Recompute recompute : {Recompute::none, Recompute::block}) {
    Setting setting{.model = sparse(4),
                    .dtype = Dtype::bf16,
                    .recipe = "deepseek_v3",
                    .recompute = recompute,
                    .schedule = "dualpipev",
                    .expert_ranks = 2,
                    .micros = 5};
    setting.model.hidden = 128;
    setting.model.ffn = 160;
    setting.model.moe.ffn = 128;
    expect_the_same_bits(setting);
  }
}

TEST(SegmentsOfStages, NameWhatTapesRecord) {
  const ModelConfig model = sparse(3);  // the first block dense, a sparse prediction module
  const auto segments = segments_of(model, cut(model, {2, 1}));
  EXPECT_EQ(segments[0],
            parse_segments("edge,attention,mlp,attention,dispatch,experts,combine,mlp"));
  EXPECT_EQ(segments[1], parse_segments("attention,dispatch,experts,combine,mlp,edge,"
                                        "edge,attention,dispatch,experts,combine,mlp,edge"));
  EXPECT_EQ(segments_of(model, cut(model, {2, 1}), false)[1],
            parse_segments("attention,dispatch,experts,combine,mlp,edge"));
  ModelConfig mixtral = model;
  mixtral.moe.shared = 0;
  EXPECT_EQ(segments_of(mixtral, cut(model, {2, 1}), false)[1],
            parse_segments("attention,dispatch,experts,combine,edge"));
}

}  // namespace
}  // namespace shoestring
