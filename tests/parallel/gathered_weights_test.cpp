#include "parallel/gathered_weights.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "core/text.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/throttled.h"

namespace shoestring {
namespace {

constexpr int layers = 8;
constexpr int64_t per_layer = 4 * 4096;

// A rank's share of eight layers, one unit each.
struct Case {
  explicit Case(Communicator& world, Dtype dtype = Dtype::f32)
      : store(device, infos(), dtype, memory_of_stage(3, dtype, false)),
        units(units_of(store, 0, layers)),
        layout(ranges_of(units), extents_of(store), world.size()),
        shards({.store = store, .owned = layout.owned(world.rank()), .zero_stage = 3}),
        weights(
            {.shard = world, .store = store, .layout = layout, .shards = shards, .units = units}) {
    shards.initialise(5);
  }
  static std::vector<ParamInfo> infos() {
    std::vector<ParamInfo> list;
    for (int i = 0; i < layers; ++i) {
      list.push_back({.name = cat("layers.", i, ".mlp.weight"), .shape = {per_layer}});
    }
    return list;
  }
  // Are these the initial weights of the layer?
  void expect(int layer) {
    const Param& p = store.params()[static_cast<size_t>(layer)];
    std::vector<float> wanted(static_cast<size_t>(per_layer));
    initial_values(p, 5, 0, wanted);
    const Tensor got = weights.weight(p);
    for (size_t i = 0; i < wanted.size(); ++i) {
      const float value = store.compute() == Dtype::f32
                              ? got.data<float>()[i]
                              : static_cast<float>(got.data<BFloat16>()[i]);
      const float want =
          store.compute() == Dtype::f32 ? wanted[i] : static_cast<float>(BFloat16(wanted[i]));
      check(value == want, "a weight of another place");
    }
  }
  Device device{DeviceKind::cpu, 0, 1};
  Stream compute = Stream::immediate(device);
  ParamStore store;
  std::vector<ParamUnit> units;
  ShardLayout layout;
  ParamShards shards;
  GatheredWeights weights;
};

void there_and_back(Case& c, const std::function<void(int)>& work) {
  WeightPass pass(c.weights, c.compute);
  for (int u = 0; u < layers; ++u) {
    pass.need(u);
    work(u);
    pass.done(u);
  }
  pass.turn_back();
  for (int u = layers; u-- > 0;) {
    pass.need(u);
    work(u);
    pass.done(u);
  }
}

TEST(GatheredWeights, UnitsComeAndGo) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (const int ranks : {1, 2, 3}) {
      const auto traffic = std::make_shared<Traffic>();
      run_ranks(ranks, [&](Communicator& world) {
        const auto counted = counting(world, traffic);
        Case c(*counted, dtype);
        const int64_t before = c.device.ledger().current(MemoryKind::weights);
        there_and_back(c, [&](int u) { c.expect(u); });
        EXPECT_EQ(c.weights.stats().gathers, 2 * layers);
        const auto w = static_cast<int64_t>(size_of(dtype));
        EXPECT_EQ(c.device.ledger().peak(MemoryKind::weights), before + 2 * per_layer * w);
        EXPECT_EQ(c.device.ledger().current(MemoryKind::weights), before);
        EXPECT_THROW(c.expect(2), Error);
      });
      EXPECT_EQ(traffic->bytes(Call::Op::all_gather),
                2 * layers * per_layer * static_cast<int64_t>(size_of(dtype)) * (ranks - 1));
    }
  }
}

TEST(GatheredWeights, KeptOverTheStep) {
  run_ranks(2, [](Communicator& world) {
    Case c(world);
    c.weights.gather();
    EXPECT_THROW(c.weights.gather(), Error);
    for (int micro = 0; micro < 3; ++micro) there_and_back(c, [&](int u) { c.expect(u); });
    c.weights.idle();  // nothing to do
    EXPECT_EQ(c.weights.stats().gathers, layers);
    c.weights.release();
    EXPECT_THROW(c.weights.release(), Error);
    EXPECT_THROW(c.expect(0), Error);
  });
}

// Links are slow, and nobody waits for the last gathers: the optimiser must, or others read its new
// values.
TEST(GatheredWeights, ShardsAreWrittenWhenNobodyReadsThem) {
  run_ranks(2, [](Communicator& world) {
    const auto slow = throttled(world, {.bytes_per_second = per_layer * 4 / 2 / 3e-3});
    Case c(*slow);
    if (world.rank() == 0) {
      there_and_back(c, [&](int u) { c.expect(u); });
    } else {
      c.weights.idle();
    }
    c.weights.finish();
    for (float& x : c.shards.master().values) x = -77;
    barrier(world, c.compute);
  });
}

// A rank without a micro-batch takes part, with memory for one unit, and waits for nothing.
TEST(GatheredWeights, IdleRanksTakePart) {
  run_ranks(3, [](Communicator& world) {
    Case c(world);
    const int64_t before = c.device.ledger().current(MemoryKind::weights);
    for (int step = 0; step < 3; ++step) {
      if (world.rank() == step % 3) {
        there_and_back(c, [&](int u) { c.expect(u); });
      } else {
        c.weights.idle();
      }
    }
    EXPECT_LE(c.device.ledger().peak(MemoryKind::weights), before + 4 * 4 * per_layer);
  });
}

// Whatever is asked for first, all ranks gather in one order, to its end.
TEST(GatheredWeights, OrderIsTheSameOnAllRanks) {
  run_ranks(2, [](Communicator& world) {
    Case c(world);
    for (int step = 0; step < 2; ++step) {
      WeightPass pass(c.weights, c.compute);
      const int first = world.rank() == 0 ? 3 : 1;
      pass.need(first);
      c.expect(first);
      pass.done(first);
      EXPECT_THROW(pass.need(first), Error);  // let go
      pass.turn_back();
      const int then = world.rank() == 0 ? 6 : 2;
      pass.need(then);
      c.expect(then);
    }
  });
}

// A unit's use takes 25 ms, its gather 10 ms: only the first of a pass is waited for.
TEST(GatheredWeights, OverlapHidesAllButTheFirstGather) {
  run_ranks(2, [](Communicator& world) {
    const auto slow = throttled(world, {.bytes_per_second = per_layer * 4 / 2 / 10e-3});
    Case c(*slow);
    there_and_back(c, [](int) { std::this_thread::sleep_for(std::chrono::milliseconds(25)); });
    const GatherStats stats = c.weights.stats();
    EXPECT_GE(stats.gather_seconds, 2 * layers * 10e-3);
    EXPECT_LE(stats.exposed_seconds, 0.3 * stats.gather_seconds)
        << stats.exposed_seconds << " s of " << stats.gather_seconds << " s";
  });
}

TEST(GatheredWeights, ARankThatFailsEndsTheOthers) {
  try {
    run_ranks(2, [](Communicator& world) {
      Case c(world);
      there_and_back(c, [&](int u) {
        if (world.rank() == 1 && u == 4) fail("no more memory");
      });
    });
    FAIL() << "no error";
  } catch (const RankError& error) {
    EXPECT_NE(std::string(error.what()).find("no more memory"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
