#include "launcher/parity.h"

#include <gtest/gtest.h>

#include <map>

#include "core/text.h"
#include "tests/launcher/faulty_communicator.h"
#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

TEST(Parity, LayoutsHoldIt) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.mesh.tp = 2, config.mesh.pp = 2;
  const ParityResult wide = parity_of(config);
  EXPECT_TRUE(wide.met()) << text_of(wide);
  EXPECT_GT(wide.error, 0);
  config.mesh.tp = 1;
  config.parallel.data_parallel = 2;
  config.mesh.ep = 2;
  config.pipeline.schedule = "dualpipe";
  const ParityResult deep = parity_of(config);
  EXPECT_TRUE(deep.met()) << text_of(deep);
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
    EXPECT_TRUE(r.met()) << text_of(r);
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
    EXPECT_TRUE(r.met()) << text_of(r);
    EXPECT_EQ(r.error_limit, 0);
  }
}

// Rounding is one rank's own, too: no f64 stands between.
TEST(Parity, OfNarrowTypesInExactModeIsEquality) {
  const ScratchFolder folder;
  for (const char* recipe : {"bf16", "deepseek_v3"}) {
    RunConfig config = parity_config(folder);
    config.train.exact = true;
    config.train.dtype = "bf16";
    config.precision.recipe = recipe;
    config.parallel.data_parallel = 2;
    config.mesh.ep = 2;
    for (const int64_t zero : {1, 2, 3}) {
      config.parallel.zero_stage = zero;
      const ParityResult r = parity_of(config);
      EXPECT_TRUE(r.numbers_met()) << recipe << " " << zero << " " << text_of(r);
      EXPECT_EQ(r.error_limit + r.loss_limit + r.norm_limit, 0);
    }
    config.parallel.zero_stage = 0;
    config.mesh.pp = 2;
    const ParityResult r = parity_of(config);
    EXPECT_TRUE(r.numbers_met()) << recipe << " " << text_of(r);
    EXPECT_EQ(r.error_limit, 0);
    EXPECT_FALSE(needs_truth(config));
    config.mesh.tp = 2;
    EXPECT_TRUE(needs_truth(config)) << "sums over tensor ranks round elsewhere";
  }
}

TEST(Parity, CountsOfASlotAreLeftOut) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.moe.balance.global_batch = 0.1;
  config.mesh.tp = 2;
  EXPECT_EQ(with_comparable_numbers(config).model.moe.balance.global_batch, 0.1);
  config.mesh.pp = 2;
  EXPECT_EQ(with_comparable_numbers(config).model.moe.balance.global_batch, 0.1);
  config.pipeline.schedule = "dualpipe";
  EXPECT_EQ(with_comparable_numbers(config).model.moe.balance.global_batch, 0);
  config = parity_config(folder);
  config.model.moe.balance.global_batch = 0.1;
  config.parallel.data_parallel = 2;
  EXPECT_FALSE(parity_of(config).numbers_met()) << "other tokens are counted";
  EXPECT_TRUE(parity_of(with_comparable_numbers(config)).met());
}

// In a pipeline later micro-batches have run forward when one runs backward: a router's loss must
// not count them.
TEST(Parity, OfStagesWithCountsOfTheGlobalBatchIsEquality) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.layers = 4;
  config.model.moe.balance.global_batch = 0.5;
  config.train.batch = 4, config.train.micro_batch = 1;
  config.train.exact = true;
  config.mesh.pp = 2;
  for (const char* schedule : {"1f1b", "interleaved-1f1b", "zb-h2", "zb-v", "dualpipev"}) {
    config.pipeline.schedule = schedule;
    const ParityResult r = parity_of(config);
    EXPECT_TRUE(r.numbers_met()) << schedule << " " << text_of(r);
    EXPECT_EQ(r.error_limit, 0);
  }
}

// Data ranks without a micro-batch.
TEST(Parity, OfMoreDataRanksThanMicroBatches) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.train.batch = 2, config.train.micro_batch = 1;
  for (const int64_t zero : {0, 1, 2}) {
    config.parallel.data_parallel = 3, config.parallel.zero_stage = zero;
    const ParityResult r = parity_of(config);
    EXPECT_TRUE(r.met()) << zero << ": " << text_of(r);
  }
  config.train.dtype = "bf16", config.precision.recipe = "deepseek_v3";
  config.model.hidden = config.model.ffn = 128, config.mesh.tp = 2;
  const ParityResult r = parity_of(config);
  EXPECT_TRUE(r.met()) << text_of(r);
}

TEST(Parity, OfNarrowTypesIsTheDistanceToTheTruth) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.moe = {};
  config.train.dtype = "bf16";
  config.mesh.tp = 2;
  const ParityResult r = parity_of(config);
  EXPECT_TRUE(r.met()) << text_of(r);
  EXPECT_GT(r.error, 0.5);
  EXPECT_EQ(r.error_limit, 1.5);
}

TEST(Parity, WorkspaceOfRingsIsForecast) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.moe = {};
  config.train.dtype = "bf16";
  config.train.sequence_length = config.model.max_positions = 256;
  config.mesh.cp = config.mesh.pp = 2;
  const ParityStep step = run_parity_step(config);
  const MemoryFigure& f = step.memory[static_cast<size_t>(MemoryKind::workspace)];
  EXPECT_LE(f.peak, f.forecast);
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

TEST(Parity, BytesAreThoseOfTheFormula) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.vocabulary = 256;
  config.model.moe = {};
  config.model.tied_embeddings = false;
  config.mesh.pp = 2;
  const ParityStep step = run_parity_step(config);
  // Activations one way, gradients the other: 8 micro-batches of 32 tokens.
  EXPECT_EQ(step.sent[static_cast<size_t>(Call::Op::exchange)],
            4 * 2 * 8 * 32 * config.model.hidden);
  EXPECT_EQ(step.sent, step.formula);
  EXPECT_EQ(run_parity_step(on_one_rank(config)).sent, (decltype(step.sent){}));
}

// Bugs that layouts have had, planted in what ranks say to one another: each shows by a figure.
//
// Names of communicators, as ModelPart and Mesh split them.
constexpr std::string_view world = "", tp = "tp", key_heads = "tp with one kv head", cp = "cp",
                           pp = "pp", ep = "ep", statistics = "stage and copies",
                           dense = "dp_cp shards", routed = "edp shards",
                           ends = "embedding sharers", ring = "cp ring";

constexpr int64_t d = 32, router = 4 * d;  // elements of gradients

using Change = void (*)(RunConfig&);
struct Setting {  // one after the other
  Change first = nullptr, second = nullptr;
};
const auto tensor = [](RunConfig& c) { c.mesh.tp = 2; };
const auto context = [](RunConfig& c) { c.mesh.cp = 2; };
const auto heads = [](RunConfig& c) { c.mesh.cp = 2, c.parallel.context = "all_to_all"; };
const auto pipeline = [](RunConfig& c) { c.mesh.pp = 2; };
const auto data = [](RunConfig& c) { c.parallel.data_parallel = 2; };
const auto zero = [](RunConfig& c) { c.parallel.data_parallel = 2, c.parallel.zero_stage = 1; };
const auto experts = [](RunConfig& c) { c.parallel.data_parallel = 4, c.mesh.ep = 2; };
const auto exact = [](RunConfig& c) { c.train.exact = true; };
const auto rows = [](RunConfig& c) { c.train.micro_batch = 2; };
const auto one_key_head = [](RunConfig& c) { c.model.kv_heads = 1; };
const auto latent = [](RunConfig& c) {
  c.model.mla = {.kv_latent = 12, .q_latent = 20, .nope_dim = 8, .rope_dim = 4, .v_dim = 8};
};
const auto biased = [](RunConfig& c) { c.model.moe.balance.bias_speed = 0.01; };
const auto global_loss = [](RunConfig& c) { c.model.moe.balance.global_batch = 0.1; };

enum class Shows : uint8_t { numbers, bytes, memory };

struct Planted {
  const char* name;
  Setting setting;
  PlantedFault fault;
  Shows by = Shows::numbers;
  const char* worst = "";  // what the name of the worst parameter has in it
};

ParityResult result_of(const RunConfig& config, const WrapWorld& wrap = nullptr) {
  static std::map<std::string, ParityStep> ones;
  const RunConfig alone = on_one_rank(config);
  const std::string key = dump_config(alone, false);
  if (!ones.contains(key)) ones[key] = run_parity_step(alone);
  return compare_steps(config, run_parity_step(config, wrap), ones.at(key), nullptr);
}

// Each must show by a figure; an error of the program would be another way to be caught, and is
// none of these.
void expect_caught(const std::vector<Planted>& faults) {
  const ScratchFolder folder;
  for (const Planted& planted : faults) {
    RunConfig config = parity_config(folder);
    for (const Change set : {planted.setting.first, planted.setting.second}) {
      if (set != nullptr) set(config);
    }
    const ParityResult sound = result_of(config);
    EXPECT_TRUE(sound.met()) << planted.name << ", without the fault: " << text_of(sound);
    try {
      const ParityResult r = result_of(config, [&](Communicator& inner) {
        return std::make_unique<FaultyCommunicator>(inner, planted.fault);
      });
      const std::string what = cat(planted.name, ": ", text_of(r));
      if (planted.by == Shows::numbers) {
        EXPECT_FALSE(r.numbers_met()) << what;
      } else {
        EXPECT_TRUE(r.numbers_met()) << what;
        EXPECT_FALSE((planted.by == Shows::bytes ? r.bytes : r.memory).empty()) << what;
      }
      EXPECT_NE(r.worst.find(planted.worst), std::string::npos) << what;
    } catch (const Error& error) {
      ADD_FAILURE() << planted.name << ": " << error.what();
    }
  }
}

using What = PlantedFault::What;

TEST(ParityFaults, SumsOfGradients) {
  expect_caught({{"norm gains and routers not summed", {tensor}, {tp, What::no_sum}},
                 {"norm gains counted twice", {tensor}, {tp, What::twice}},
                 {"parts of sums not added up", {tensor}, {tp, What::own_piece}},
                 {"a key head's gradient left with each holder",
                  {one_key_head, [](RunConfig& c) { c.mesh.tp = 4; }},
                  {key_heads, What::no_sum},
                  Shows::numbers,
                  "qkv"},
                 {"gradients of context ranks averaged", {context}, {dense, What::mean}},
                 {"gradients of context ranks not summed", {context}, {dense, What::own_piece}},
                 {"a tied embedding not summed over the ends", {pipeline}, {ends, What::no_sum}},
                 {"a tied embedding counted twice", {pipeline}, {ends, What::twice}},
                 {"gradients averaged over data ranks", {data}, {dense, What::mean}},
                 {"a missing sum over replicas", {data}, {dense, What::own_piece}},
                 {"a missing sum over replicas, shared state", {zero}, {dense, What::own_piece}},
                 {"a missing sum over replicas of experts",
                  {experts},
                  {routed, What::own_piece},
                  Shows::numbers,
                  "experts"},
                 {"loads of experts left with each rank",
                  {tensor, global_loss},
                  {statistics, What::no_sum, false, 0, Dtype::f64}}});
}

TEST(ParityFaults, ValuesOnTheirWay) {
  expect_caught(
      {{"rows or the vocabulary's sums from one rank", {tensor}, {tp, What::stale}},
       {"a swapped order of rows in dispatch and combine", {experts}, {ep, What::swapped}},
       {"the same with tensor ranks",
        {tensor, [](RunConfig& c) { c.mesh.ep = 2; }},
        {ep, What::swapped}},
       {"activations that never arrive", {pipeline}, {pp, What::silent}},
       {"keys and values of other ranks lost", {context}, {ring, What::silent}}});
}

// Numbers are right: nothing but the count of bytes tells.
TEST(ParityFaults, Bytes) {
  expect_caught(
      {{"sums over tensor ranks made twice", {tensor}, {tp, What::sent_twice}, Shows::bytes},
       {"gradients reduced twice", {data}, {dense, What::sent_twice}, Shows::bytes},
       {"the embedding summed twice", {pipeline}, {ends, What::sent_twice}, Shows::bytes},
       {"experts' gradients reduced twice", {experts}, {routed, What::sent_twice}, Shows::bytes}});
}

TEST(ParityFaults, Memory) {
  expect_caught({{"staging of tensor ranks stays", {tensor}, {tp, What::leak}, Shows::memory},
                 {"staging of data ranks stays", {data}, {dense, What::leak}, Shows::memory}});
}

// Real bugs by their trackers' numbers (M Megatron-LM, "!" an internal request, T torchtitan, TE
// Transformer Engine, D DeepSpeed, C ColossalAI, N nanotron).
// What cannot be planted so, and what sees it: docs/parity.md.
TEST(ParityFaults, MuseumOfTokensAndHeads) {
  const int64_t rope_rows = 16 * (12 + 4);
  expect_caught(
      {{"M #7513, !1923, D #5555: a factor of c at stage 0", {context}, {dense, What::mean}},
       {"the same with all-to-all", {heads}, {dense, What::mean}},
       {"M #906: loss times c, divided by D only", {context, data}, {dense, What::twice}},
       {"M #5047: the router's gradient short by t",
        {tensor},
        {tp, What::mean, false, router},
        Shows::numbers,
        "router"},
       {"M #7452, #737: sums of the vocabulary's parts counted t times",
        {tensor},
        {tp, What::wider, false, 0, Dtype::f64}},
       {"M #1699: the rotary key's gradient not summed over heads",
        {tensor, latent},
        {tp, What::own_piece, false, rope_rows}},
       {"M #6839: the same doubled", {tensor, latent}, {tp, What::twice, false, rope_rows}},
       {"M #5338: a sum into a copy that nobody reads", {tensor}, {tp, What::no_sum}}});
}

TEST(ParityFaults, MuseumOfExpertsAndStages) {
  expect_caught(
      {{"M #5916, D #5411, C #2521: the norm misses parts",
        {tensor},
        {world, What::stale, true, 0, Dtype::f64}},
       {"D #6546, M !2564: experts' gradients divided by their copies",
        {experts},
        {routed, What::mean},
        Shows::numbers,
        "experts"},
       {"T #1551: experts' gradients counted twice",
        {experts},
        {routed, What::twice},
        Shows::numbers,
        "experts"},
       {"M !2824: rows mis-sorted on their way home (t, e and local experts above 1)",
        {tensor, [](RunConfig& c) { c.mesh.ep = 2, c.parallel.data_parallel = 2; }},
        {ep, What::swapped}},
       {"T #1878, #2416, #4054: the router's gradient left partial, the loss sound",
        {tensor},
        {tp, What::no_sum, false, router},
        Shows::numbers,
        "router"},
       {"T #3604: rows of another place of the sequence, b = 2",
        {tensor, rows},
        {tp, What::rotated}},
       {"T #4154, M #6114: counts for the biases not summed",
        {data, biased},
        {world, What::no_sum, true, 0, Dtype::f64},
        Shows::numbers,
        "router.bias"},
       {"D #5664, T #3206, #3681: heads scrambled on their way", {heads}, {cp, What::swapped}},
       {"TE #3331: keys of the ring dropped", {context}, {ring, What::silent}},
       {"D #7967: only the first micro-batch is kept", {data, exact}, {dense, What::only_first}},
       {"D #7985: the last of four micro-batches stays with its rank, unsummed",
        {data, exact},
        {.where = dense, .what = What::own_alone, .sound = 3}},
       {"D #8154, T #1732: a stage's gradients scaled", {pipeline}, {pp, What::mean}},
       {"C #4926: norm gains not summed",
        {tensor},
        {tp, What::no_sum, false, d},
        Shows::numbers,
        "gain"}});
}

}  // namespace
}  // namespace shoestring
