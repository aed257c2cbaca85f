#include "parallel/reducing_source.h"

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>

#include "core/model/transformer.h"
#include "core/random.h"
#include "parallel/comm/in_process.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

ModelConfig small_model() {
  return {.layers = 2,
          .hidden = 32,
          .ffn = 48,
          .heads = 4,
          .kv_heads = 2,
          .vocabulary = 300,
          .max_positions = 32,
          .tied_embeddings = true};
}

// Micro-batch g of a step: its own tokens, and its own number of labels.
MicroBatch micro_batch(int64_t step, int64_t g) {
  MicroBatch m{.sequences = 2, .length = 16};
  const RandomStream random(static_cast<uint64_t>(100 * step + g), "tokens");
  for (uint64_t i = 0; i < 32; ++i) {
    m.tokens.push_back(static_cast<int32_t>(random.below(i, 300)));
    const bool valid = i % 16 < 10 + static_cast<uint64_t>(g);
    m.labels.push_back(valid ? static_cast<int32_t>(random.below(1000 + i, 300)) : -1);
    m.valid_labels += valid;
    m.positions.push_back(static_cast<int32_t>(i % 16));
    m.first_key.push_back(0);
  }
  m.sample_ids = {0, 1};
  m.sources = {0, 0};
  return m;
}

struct Outcome {
  std::vector<float> master;
  std::vector<double> losses;
};

struct Plan {
  int ranks = 1;
  Dtype compute = Dtype::f32;
  DataParallelConfig config = {};
};
constexpr int64_t micro_batches = 5, steps = 3;

double run_micro_batch(Transformer& model, Stream& stream, ParamSource& source,
                       const MicroBatch& rows) {
  const BatchTensors batch = to_device(stream.device(), rows);
  Tape tape(stream, source, Tape::Mode::training);
  LayerContext context{.tape = tape, .batch = batch};
  const double loss = model.run(context, {.loss_scale = 1.0 / 100, .exact = true}).loss_sum;
  tape.backward();
  return loss;
}

// Plain gradient descent on a real model, as one rank of several.
Outcome train_rank(Communicator& world, const Plan& plan) {
  Device device(DeviceKind::cpu, 0, 1);
  Stream compute = Stream::immediate(device);
  const ModelConfig config = small_model();
  ParamStore store(device, parameters_of(config, whole_model(config)), plan.compute);
  store.initialise(3);
  Transformer model(config, store, whole_model(config));
  Stream comm = Stream::worker(device, "comm");
  DataParallel dp(world, comm, plan.config, store.elements(), extents_of(store));
  ReducingSource source(store, dp, compute);
  Outcome outcome;
  for (int64_t step = 0; step < steps; ++step) {
    MicroBatchRows own;
    for (int64_t slot = 0; slot < dp.slots(micro_batches); ++slot) {
      dp.begin_slot(store.gradients(), slot, micro_batches);
      if (dp.zero_before(slot)) store.zero_gradients();
      if (dp.has_micro_batch(slot, micro_batches)) {
        const int64_t g = slot * world.size() + world.rank();
        own.add(g, {run_micro_batch(model, compute, source, micro_batch(step, g))});
      }
      dp.end_slot();
    }
    dp.finish();
    for (const FlatRange& range : dp.owned_ranges()) {
      for (auto i = static_cast<size_t>(range.begin); i < static_cast<size_t>(range.end); ++i) {
        store.master()[i] -= 0.1f * store.gradients()[i];
      }
      store.refresh_compute(range.begin, range.end);
    }
    dp.gather_parameters(buffer_of(store.master())).wait();
    if (plan.compute == Dtype::bf16) {
      dp.gather_parameters(buffer_of(store.compute_copy())).wait();
    }
    store.raise_version();
    outcome.losses.push_back(sum_rows(world, comm, own)[0]);
  }
  outcome.master.assign(store.master().begin(), store.master().end());
  return outcome;
}

Outcome train(const Plan& plan) {
  Outcome result;
  std::mutex mutex;
  run_ranks(plan.ranks, [&](Communicator& world) {
    Outcome outcome = train_rank(world, plan);
    std::lock_guard lock(mutex);
    if (result.master.empty()) result = outcome;
    check(std::memcmp(result.master.data(), outcome.master.data(),
                      result.master.size() * sizeof(float)) == 0 &&
              result.losses == outcome.losses,
          "all ranks hold the same parameters and know the same losses");
  });
  return result;
}

bool same_bits(const Outcome& a, const Outcome& b) {
  return a.losses == b.losses && a.master.size() == b.master.size() &&
         std::memcmp(a.master.data(), b.master.data(), a.master.size() * sizeof(float)) == 0;
}

TEST(ReducingSource, ExactTrainingOfAModelIsTheSameOnAnyNumberOfRanks) {
  for (Dtype compute : {Dtype::f32, Dtype::bf16}) {
    const Outcome wanted =
        train({.compute = compute, .config = {.bucket_bytes = 16384, .exact = true}});
    EXPECT_LT(wanted.losses.back(), wanted.losses.front());
    for (int ranks : {2, 3, 4}) {
      for (int64_t stage : {0, 1}) {
        const Outcome got =
            train({.ranks = ranks,
                   .compute = compute,
                   .config = {.bucket_bytes = 16384, .zero_stage = stage, .exact = true}});
        EXPECT_TRUE(same_bits(got, wanted))
            << ranks << " ranks, stage " << stage << ", " << name_of(compute);
      }
    }
  }
}

TEST(ReducingSource, PlainTrainingIsCloseAndStagesAgree) {
  const Outcome one = train({});
  for (int ranks : {2, 3}) {
    const Outcome zero0 = train({.ranks = ranks, .config = {.bucket_bytes = 16384}});
    const Outcome zero1 =
        train({.ranks = ranks, .config = {.bucket_bytes = 16384, .zero_stage = 1}});
    EXPECT_TRUE(same_bits(zero0, zero1)) << ranks;
    for (size_t s = 0; s < steps; ++s) {
      EXPECT_NEAR(zero0.losses[s] / one.losses[s], 1, 1e-5) << ranks;
    }
  }
}

TEST(ReducingSource, ExtentsAreThoseOfTheParameters) {
  Device device(DeviceKind::cpu, 0, 1);
  const ModelConfig config = small_model();
  const ParamStore store(device, parameters_of(config, whole_model(config)), Dtype::f32);
  const auto extents =
      extents_of(store, [](const Param& p) { return p.info.param_class == ParamClass::hidden; });
  ASSERT_EQ(extents.size(), store.params().size());
  for (size_t i = 0; i < extents.size(); ++i) {
    const Param& p = store.params()[i];
    EXPECT_EQ(extents[i].begin, p.offset);
    EXPECT_EQ(extents[i].end, p.offset + p.elements);
    EXPECT_EQ(extents[i].whole, p.info.param_class == ParamClass::hidden);
  }
}

}  // namespace
}  // namespace shoestring
