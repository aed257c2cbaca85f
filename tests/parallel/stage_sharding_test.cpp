// A pipeline of two stages, each of whose ranks shares its parameters with another: against one
// rank.
#include "parallel/stage_sharding.h"

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>

#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/model_stages.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/sharding_pass.h"
#include "parallel/simulate.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

struct Setting {
  const char* order = "1f1b";
  int pipeline = 2, shards = 2, micros = 4;  // of each data rank
  int64_t stage = 3;
  bool exact = true;
  GradientLife life = GradientLife::automatic;
  int hold = 1;
  bool offload = false;
  bool tied = false;
  int steps = 2;
};

ModelConfig model_of(const Setting& s) {
  ModelConfig model = small_model();
  model.layers = 8;
  model.tied_embeddings = s.tied;
  return model;
}

MicroBatch rows(const ModelConfig& model, int64_t step, int64_t g) {
  MicroBatch m = some_rows(model.vocabulary, 8 + 2 * (g % 3));
  for (int32_t& token : m.tokens) {
    token = static_cast<int32_t>((token + 7 * g + 3 * step) % model.vocabulary);
  }
  return m;
}

Schedule schedule_of(const Setting& s) {
  const Schedule plain =
      add_transfers(make_schedule({.name = s.order, .ranks = s.pipeline, .micros = s.micros}));
  const bool each =
      s.exact || s.life == GradientLife::slot || (s.life == GradientLife::automatic && s.stage > 1);
  return add_sharding(plain, {.gather = s.stage == 3, .hold = s.hold, .reduce_each = each});
}

struct Outcome {
  std::map<std::string, std::vector<float>> master;
  std::map<int64_t, double> losses;  // by step and global micro-batch
};

// One stage's parameters: a group of their own.
struct Group {
  std::vector<ParamUnit> units;
  std::unique_ptr<Communicator> comm;
  Stream stream;
  std::unique_ptr<DataParallel> dp;
  std::unique_ptr<ParamShards> shards;
  std::unique_ptr<GatheredWeights> weights;

  Group(const Setting& s, ParamStore& store, Communicator& data, std::pair<int, int> params)
      : units(units_of(store, params.first, params.second)),
        comm(data.split(0, data.rank())),
        stream(Stream::worker(store.device(), "comm")) {
    dp = std::make_unique<DataParallel>(DataParallelPlan{
        .shard = *comm,
        .stream = stream,
        .config =
            {.zero_stage = s.stage, .exact = s.exact, .gradients = s.life, .slots_overlap = true},
        .range = {units.front().range.begin, units.back().range.end},
        .first_param = params.first,
        .params = extents_of(store, {.first = params.first, .last = params.second}),
        .units = ranges_of(units)});
    shards = std::make_unique<ParamShards>(
        ParamShardsPlan{.store = store, .owned = dp->owned_ranges(), .zero_stage = s.stage});
    shards->initialise(1);
    if (s.stage < 3) return;
    weights = std::make_unique<GatheredWeights>(GatherPlan{
        .shard = *comm, .store = store, .layout = dp->layout(), .shards = *shards, .units = units});
  }
  // Plain gradient descent on what is owned.
  void descend(const Setting& s, ParamStore& store) {
    const FlatSpan<float> master = shards->master();
    int64_t packed = 0;
    for (const FlatRange& r : shards->owned()) {
      for (int64_t i = 0; i < r.elements(); ++i) {
        const auto at = static_cast<size_t>(r.begin + i), in = static_cast<size_t>(packed + i);
        const float g = s.stage > 1 ? dp->owned_gradients()[in] : store.gradients()[at];
        master.values[master.ranges.empty() ? at : in] -= 0.1f * g;
      }
      packed += r.elements();
    }
    const FlatRange range{units.front().range.begin, units.back().range.end};
    if (s.stage == 3) return;
    dp->gather_parameters(buffer_of(store.master()).part(range.begin, range.elements())).wait();
  }
  void report(const ParamStore& store, Outcome& outcome) const {
    const FlatSpan<float> master = shards->master();
    int64_t packed = 0;
    for (const FlatRange& r : shards->owned()) {
      for (const Param& p : store.params()) {
        const int64_t begin = std::max(r.begin, p.offset);
        const int64_t end = std::min(r.end, p.offset + p.elements);
        if (begin >= end) continue;
        std::vector<float>& to = outcome.master[p.info.name];
        to.resize(static_cast<size_t>(p.elements));
        const int64_t from = master.ranges.empty() ? begin : packed + begin - r.begin;
        std::copy_n(master.values.data() + from, end - begin, to.data() + begin - p.offset);
      }
      packed += r.elements();
    }
  }
};

// Groups of a rank's stages; a parameter that two of them hold is a group of both.
std::vector<StageGroup> groups_of(const Setting& s, const Placement& where, int rank,
                                  const std::vector<Chunk>& chunks, ParamStore& store,
                                  Communicator& data, std::vector<std::unique_ptr<Group>>& owners) {
  const ModelConfig model = model_of(s);
  std::map<std::string, std::vector<int>> users;
  for (const int stage : stages_of(where, rank)) {
    for (const ParamInfo& p : parameters_of(model, chunks[static_cast<size_t>(stage)])) {
      users[p.name].push_back(stage);
    }
  }
  std::vector<StageGroup> groups;
  for (int first = 0; first < static_cast<int>(store.params().size());) {
    const auto& stages = users.at(store.params()[static_cast<size_t>(first)].info.name);
    int last = first;
    while (last < static_cast<int>(store.params().size()) &&
           users.at(store.params()[static_cast<size_t>(last)].info.name) == stages) {
      ++last;
    }
    owners.push_back(std::make_unique<Group>(s, store, data, std::pair(first, last)));
    Group& group = *owners.back();
    groups.push_back({.params = {.gradients = group.dp.get(), .weights = group.weights.get()},
                      .range = {group.units.front().range.begin, group.units.back().range.end},
                      .stages = stages,
                      .shared = stages.size() > 1 ? SharedBy::here : SharedBy::nobody,
                      .stream = &group.stream});
    first = last;
  }
  return groups;
}

void run_rank(Communicator& world, const Setting& s, std::mutex& mutex, Outcome& outcome) {
  const ModelConfig model = model_of(s);
  const Schedule schedule = schedule_of(s);
  const auto pipeline = world.split(world.rank() % s.shards, world.rank());
  const auto data = world.split(world.rank() / s.shards, world.rank());
  const std::vector<Chunk> chunks = cut(model, even_split(model, schedule.where.stages()));
  Device device(DeviceKind::cpu, 0, 1), host(DeviceKind::cpu, 0, 1);
  Stream compute = Stream::immediate(device), copies = Stream::worker(device, "copies");
  ParamStore store(device,
                   parameters_of(model, chunks, stages_of(schedule.where, pipeline->rank())),
                   Dtype::f32, memory_of_stage(s.stage, Dtype::f32, false));
  std::vector<std::unique_ptr<Group>> owners;
  StageSharding sharding(
      store, compute, schedule.where, pipeline->rank(),
      groups_of(s, schedule.where, pipeline->rank(), chunks, store, *data, owners));
  StoreSource source(store);
  ModelStages work({model, chunks, schedule.where, pipeline->rank()}, store, source, compute,
                   {.exact = true,
                    .sharding = &sharding,
                    .host = s.offload ? &host : nullptr,
                    .copies = &copies});
  PipelineEngine engine(*pipeline, compute, schedule);
  for (int64_t step = 0; step < s.steps; ++step) {
    std::vector<BatchTensors> micros;
    for (int m = 0; m < s.micros; ++m) {
      micros.push_back(to_device(device, rows(model, step, m * s.shards + data->rank())));
    }
    store.zero_gradients();
    sharding.begin(static_cast<int64_t>(s.micros) * s.shards, s.micros);
    work.begin(std::move(micros), 0.02, std::vector<double>(static_cast<size_t>(s.micros), 0.02));
    engine.run(work);
    sharding.finish();
    for (auto& group : owners) group->descend(s, store);
    store.raise_version();
    const std::lock_guard lock(mutex);
    for (int m = 0; m < s.micros; ++m) {
      const StageResult& r = work.results()[static_cast<size_t>(m)];
      const int64_t g = m * s.shards + data->rank();
      if (r.main.count > 0) outcome.losses[100 * step + g] = r.main.loss_sum;
    }
  }
  const std::lock_guard lock(mutex);
  for (auto& group : owners) group->report(store, outcome);
}

Outcome run(const Setting& s) {
  Outcome outcome;
  std::mutex mutex;
  run_ranks(s.pipeline * s.shards,
            [&](Communicator& world) { run_rank(world, s, mutex, outcome); });
  return outcome;
}

Outcome run_alone(const Setting& s) {
  return run({.order = "gpipe",
              .pipeline = 1,
              .shards = 1,
              .micros = s.micros * s.shards,
              .stage = 1,
              .tied = s.tied});
}

void expect_equal(const Outcome& got, const Outcome& want, const std::string& what) {
  EXPECT_EQ(got.losses, want.losses) << what;
  ASSERT_EQ(got.master.size(), want.master.size()) << what;
  for (const auto& [name, values] : want.master) EXPECT_EQ(got.master.at(name), values) << name;
}

// DeepSpeed #8154: two stages and eight accumulated micro-batches; here two ranks a stage as well.
TEST(StageSharding, PipelinesOfShardsHaveTheBitsOfOneRank) {
  for (const char* order : {"gpipe", "1f1b", "zb-h1", "interleaved-1f1b", "zb-v"}) {
    for (const int64_t stage : {0, 1, 2, 3}) {
      const Setting setting{.order = order, .stage = stage};
      expect_equal(run(setting), run_alone(setting), cat(order, " ", stage));
    }
  }
}

TEST(StageSharding, WeightsMayStayOrGo) {
  const Outcome want = run_alone({});
  for (const int hold : {0, 3, ShardingOptions::whole_step}) {
    for (const bool offload : {false, true}) {
      expect_equal(run({.hold = hold, .offload = offload}), want, cat(hold, offload));
    }
  }
}

TEST(StageSharding, PlainStagesAgree) {
  for (const GradientLife life : {GradientLife::step, GradientLife::slot}) {
    Setting setting{.order = "zb-h1", .stage = 0, .exact = false, .life = life};
    const Outcome want = run(setting);
    for (setting.stage = 1; setting.stage <= 3; ++setting.stage) {
      expect_equal(run(setting), want, cat("stage ", setting.stage));
    }
  }
}

// Both ends of a V stand on one rank and share the embedding's matrix.
TEST(StageSharding, AParameterOfTwoStages) {
  for (const int64_t stage : {1, 2, 3}) {
    const Setting setting{.order = "zb-v", .stage = stage, .tied = true};
    const Outcome got = run(setting), want = run_alone(setting);
    expect_equal(got, want, cat("stage ", stage));
  }
}

}  // namespace
}  // namespace shoestring
