#include "launcher/parity.h"

#include <gtest/gtest.h>

#include "core/model/parameters.h"
#include "core/text.h"
#include "tests/launcher/faulty_communicator.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

RunConfig parity_config(const ScratchFolder& folder) {
  RunConfig config = small_config(folder);
  config.train.batch = 8, config.train.micro_batch = 1;
  config.model.layers = 4;
  config.model.tied_embeddings = true;
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 16, .shared = 1, .first_dense = 1};
  config.model.moe.scores = "sigmoid";
  config.model.moe.balance.sequence = 0.1;
  return config;
}

ParityResult parity_of(const RunConfig& config, const WrapWorld& wrap = nullptr) {
  const ParityStep one = run_parity_step(on_one_rank(config));
  const ParityStep step = run_parity_step(config, wrap);
  if (config.train.dtype == "f32") return compare_steps(config, step, one, nullptr);
  const ParityStep oracle = run_oracle_step(config);
  return compare_steps(config, step, one, &oracle);
}

TEST(Parity, LayoutsHoldIt) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.mesh.tp = 2, config.mesh.pp = 2;
  const ParityResult wide = parity_of(config);
  EXPECT_TRUE(wide.met()) << wide.worst << " " << wide.error << " " << wide.loss;
  EXPECT_GT(wide.error, 0);
  config.mesh.tp = 1;
  config.parallel.data_parallel = 2;
  config.mesh.ep = 2;
  config.pipeline.schedule = "dualpipe";
  const ParityResult deep = parity_of(config);
  EXPECT_TRUE(deep.met()) << deep.worst << " " << deep.error << " " << deep.loss;
}

// Pipelines with data ranks, an embedding that stages share and experts on several groups included.
TEST(Parity, OfStagesAndExpertsInExactModeIsEquality) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.train.exact = true;
  config.parallel.data_parallel = 4;
  config.mesh.ep = 2;
  for (const char* schedule : {"1f1b", "zb-v", "dualpipe"}) {
    config.mesh.pp = std::string(schedule) == "1f1b" ? 1 : 2;
    config.parallel.data_parallel = config.mesh.pp == 1 ? 4 : 2;
    config.pipeline.schedule = schedule;
    const ParityResult r = parity_of(config);
    EXPECT_TRUE(r.met()) << r.worst << " " << r.error << " " << r.loss << " " << r.norm;
    EXPECT_EQ(r.error_limit, 0) << schedule;
  }
}

TEST(Parity, OfDataRanksInExactModeIsEquality) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.train.exact = true;
  config.parallel.data_parallel = 3;
  for (const int64_t zero : {0, 1}) {
    config.parallel.zero_stage = zero;
    const ParityResult r = parity_of(config);
    EXPECT_TRUE(r.met()) << r.worst << " " << r.error << " " << r.loss << " " << r.norm;
    EXPECT_EQ(r.error_limit, 0);
  }
}

TEST(Parity, OfNarrowTypesIsTheDistanceToTheTruth) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.moe = {};
  config.train.dtype = "bf16";
  config.mesh.tp = 2;
  const ParityResult r = parity_of(config);
  EXPECT_TRUE(r.met()) << r.worst << " " << r.error << " " << r.loss << " " << r.norm;
  EXPECT_GT(r.error, 0.5);
  EXPECT_EQ(r.error_limit, 1.5);
}

TEST(Parity, OfSlicesOfExperts) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.parallel.data_parallel = 2;
  config.mesh.tp = 2, config.mesh.ep = 2, config.mesh.etp = 2;
  const ParityResult wide = parity_of(config);
  EXPECT_TRUE(wide.met()) << wide.worst << " " << wide.error << " " << wide.loss;
  config.mesh = MeshConfig();
  config.mesh.etp = 2;
  config.train.exact = true;
  const ParityResult exact = parity_of(config);
  EXPECT_TRUE(exact.met()) << exact.worst << " " << exact.error << " " << exact.loss;
  EXPECT_GT(exact.error_limit, 0) << "sums over slices are not those of one rank";
  config.train.exact = false;
  config.train.dtype = "bf16";
  config.model.moe.ffn = 256;  // slices of whole tiles
  for (const char* recipe : {"bf16", "deepseek_v3"}) {
    config.precision.recipe = recipe;
    const ParityResult narrow = parity_of(config);
    EXPECT_TRUE(narrow.met()) << recipe << " " << narrow.worst << " " << narrow.error << " "
                              << narrow.loss << " " << narrow.norm;
  }
}

TEST(Parity, CountsWhatIsSent) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.vocabulary = 256;
  config.model.moe = {};
  config.model.tied_embeddings = false;
  config.mesh.pp = 2;
  const ParityStep step = run_parity_step(config);
  // Activations one way, gradients the other: 8 micro-batches of 32 tokens. Then the gradients of
  // the second stage, which are put together with the first one's.
  int64_t elements = 2 * 8 * 32 * config.model.hidden;
  for (const ParamInfo& p : parameters_of(config.model, cut(config.model, {2, 2})[1])) {
    elements += p.shape.elements();
  }
  EXPECT_EQ(step.bytes[static_cast<size_t>(Call::Op::exchange)], 4 * elements);
  EXPECT_EQ(run_parity_step(on_one_rank(config)).bytes, (decltype(step.bytes){}));
}

// What a communicator is for, in the order in which ModelPart and then StepGradients split them off
// the world; a ring of context ranks comes between the two.
enum Split { tp, cp, pp, ep, statistics, shared, dense, experts_, sharers };
constexpr int ring = 1;

struct Planted {
  std::string name;
  std::function<void(RunConfig&)> layout;
  PlantedFault fault;
};

// Bugs that layouts have had (docs/mesh.md), planted in what ranks say to one another.
TEST(Parity, CatchesPlantedFaults) {
  using What = PlantedFault::What;
  const auto tensor = [](RunConfig& c) { c.mesh.tp = 2; };
  const auto context = [](RunConfig& c) { c.mesh.cp = 2; };
  const auto pipeline = [](RunConfig& c) { c.mesh.pp = 2; };
  const auto data = [](RunConfig& c) { c.parallel.data_parallel = 2; };
  const auto experts = [](RunConfig& c) { c.parallel.data_parallel = 4, c.mesh.ep = 2; };
  const std::vector<Planted> faults = {
      {"norm gains and routers not summed over tensor ranks", tensor, {tp, What::no_sum}},
      {"norm gains counted twice", tensor, {tp, What::twice}},
      {"parts of sums not added up", tensor, {tp, What::own_piece}},
      {"rows or the vocabulary's parts gathered from one rank", tensor, {tp, What::stale}},
      {"gradients of context ranks averaged", context, {dense + ring, What::mean}},
      {"gradients of context ranks not summed", context, {dense + ring, What::own_piece}},
      {"a tied embedding not summed over the ends", pipeline, {sharers, What::no_sum}},
      {"a tied embedding counted twice", pipeline, {sharers, What::twice}},
      {"gradients averaged over data ranks", data, {dense, What::mean}},
      {"a missing sum over replicas", data, {dense, What::own_piece}},
      {"a missing sum over replicas of experts", experts, {experts_, What::own_piece}},
      {"experts' gradients scaled by their copies", experts, {experts_, What::mean}},
      {"a swapped order of rows in dispatch and combine", experts, {ep, What::swapped}},
      {"activations that never arrive", pipeline, {-1, What::silent_sends}}};
  const ScratchFolder folder;
  for (const Planted& planted : faults) {
    RunConfig config = parity_config(folder);
    planted.layout(config);
    EXPECT_TRUE(parity_of(config).met()) << planted.name << ": without the fault";
    bool caught = false;
    std::string how;
    try {
      const ParityResult r = parity_of(config, [&](Communicator& world) {
        return std::make_unique<FaultyCommunicator>(world, planted.fault, false);
      });
      caught = !r.met();
      how = cat(r.worst, " ", r.error, " loss ", r.loss, " norm ", r.norm);
    } catch (const Error& error) {
      caught = true;  // a check of the program found it first
      how = error.what();
    }
    EXPECT_TRUE(caught) << planted.name << ": " << how;
  }
}

}  // namespace
}  // namespace shoestring
