#include "parallel/data_parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>

#include "core/text.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/throttled.h"

namespace shoestring {
namespace {

using Floats = std::vector<float>;

// A store of seven parameters with padding between some of them.
constexpr int64_t elements = 64 * 700;
std::vector<ParamExtent> test_params() {
  return {{0, 9000, true},      {9024, 9100, false},   {9152, 20000, false}, {20032, 20033, false},
          {20096, 30000, true}, {30016, 44000, false}, {44032, 44800, false}};
}

// The gradient of micro-batch g: magnitudes differ so much that the order of a sum shows.
void add_product(std::span<float> store, int64_t g) {
  std::mt19937_64 random(static_cast<uint64_t>(g) + 5);
  for (const ParamExtent& p : test_params()) {
    for (int64_t i = p.begin; i < p.end; ++i) {
      const uint64_t h = random();
      const float scale = h % 3 == 0 ? 1e6f : h % 3 == 1 ? 1.0f : 1e-3f;
      store[static_cast<size_t>(i)] += scale * (static_cast<float>(h >> 40) / 8388608.0f - 1);
    }
  }
}

Floats sequential_sum(int64_t micro_batches) {
  Floats sum(elements);
  for (int64_t g = 0; g < micro_batches; ++g) {
    Floats x(elements);
    add_product(x, g);
    for (size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
  }
  return sum;
}

// Rank by rank in slots, then over ranks: what plain mode computes.
Floats sum_by_ranks(int64_t micro_batches, int ranks) {
  Floats sum(elements);
  for (int r = 0; r < ranks; ++r) {
    Floats x(elements);
    for (int64_t g = r; g < micro_batches; g += ranks) add_product(x, g);
    for (size_t i = 0; i < x.size(); ++i) sum[i] = r == 0 ? x[i] : sum[i] + x[i];
  }
  return sum;
}

struct Plan {
  int ranks = 1;
  int64_t micro_batches = 1;
  DataParallelConfig config = {};
  bool worker = true;
  bool shuffled = false;  // parameters become ready in another order on every rank
  int steps = 1;
};

// One step of a rank, as the training loop goes.
void run_step(DataParallel& dp, Communicator& world, const Plan& run, Floats& gradients) {
  std::vector<int> order(test_params().size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(order.size() - 1 - i);
  if (run.shuffled) {
    std::mt19937_64 random(static_cast<uint64_t>(world.rank()));
    std::shuffle(order.begin(), order.end(), random);
  }
  for (int64_t slot = 0; slot < dp.slots(run.micro_batches); ++slot) {
    dp.begin_slot(gradients, slot, run.micro_batches);
    if (dp.zero_before(slot)) std::fill(gradients.begin(), gradients.end(), 0.0f);
    if (dp.has_micro_batch(slot, run.micro_batches)) {
      add_product(gradients, slot * world.size() + world.rank());
      for (int p : order) dp.gradient_ready(p);
    }
    dp.end_slot();
  }
  dp.finish();
}

// The reduced gradients, put together from what each rank owns; where ranks own the same elements
// they must agree.
Floats reduce(const Plan& run) {
  Floats result(elements), covered(elements);
  std::mutex mutex;
  run_ranks(run.ranks, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Floats gradients(elements);
    Stream stream = run.worker ? Stream::worker(device, "comm") : Stream::immediate(device);
    DataParallel dp(world, stream, run.config, elements, test_params());
    for (int step = 0; step < run.steps; ++step) run_step(dp, world, run, gradients);
    std::lock_guard lock(mutex);
    for (const FlatRange& range : dp.owned_ranges()) {
      for (auto i = static_cast<size_t>(range.begin); i < static_cast<size_t>(range.end); ++i) {
        if (covered[i] != 0 && std::memcmp(&result[i], &gradients[i], 4) != 0) {
          fail(cat("ranks disagree about element ", i));
        }
        result[i] = gradients[i];
        covered[i] = 1;
      }
    }
  });
  for (float c : covered) {
    if (c == 0) ADD_FAILURE() << "an element that nobody owns";
  }
  return result;
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(DataParallel, ExactModeGivesTheSameBitsOnAnyNumberOfRanks) {
  for (int64_t micro_batches : {1, 2, 3, 5, 8}) {
    const Floats wanted = sequential_sum(micro_batches);
    for (int ranks : {1, 2, 3, 4}) {
      for (int64_t stage : {0, 1}) {
        const Plan run{.ranks = ranks,
                       .micro_batches = micro_batches,
                       .config = {.bucket_bytes = 40000, .zero_stage = stage, .exact = true},
                       .shuffled = stage == 1};
        EXPECT_TRUE(same_bits(reduce(run), wanted))
            << ranks << " ranks, " << micro_batches << " micro-batches, stage " << stage;
      }
    }
  }
}

TEST(DataParallel, TheOrderOfTheTestsSumsShows) {
  EXPECT_FALSE(same_bits(sum_by_ranks(8, 2), sequential_sum(8)));
}

TEST(DataParallel, PlainModeSumsInRankOrderAndStagesAgree) {
  for (int ranks : {1, 2, 3, 4}) {
    for (int64_t micro_batches : {1, 4, 7}) {
      const Floats wanted = sum_by_ranks(micro_batches, ranks);
      for (int64_t stage : {0, 1}) {
        for (int64_t bytes : {16384, 60000, 1 << 20}) {
          const Plan run{.ranks = ranks,
                         .micro_batches = micro_batches,
                         .config = {.bucket_bytes = bytes, .zero_stage = stage},
                         .shuffled = bytes == 60000};
          EXPECT_TRUE(same_bits(reduce(run), wanted))
              << ranks << " ranks, " << micro_batches << " micro-batches, stage " << stage;
        }
      }
    }
  }
}

TEST(DataParallel, StepsAndStreamsDoNotMatter) {
  for (bool exact : {false, true}) {
    Plan run{.ranks = 3, .micro_batches = 5, .config = {.bucket_bytes = 50000, .exact = exact}};
    const Floats wanted = reduce(run);
    run.worker = false;
    EXPECT_TRUE(same_bits(reduce(run), wanted));
    run.worker = true;
    run.steps = 3;
    EXPECT_TRUE(same_bits(reduce(run), wanted));
  }
}

TEST(DataParallel, OwnersParametersReachEverybody) {
  run_ranks(3, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Floats gradients(elements), master(elements);
    std::vector<BFloat16> compute(elements);
    Stream stream = Stream::worker(device, "comm");
    DataParallel dp(world, stream, {.bucket_bytes = 30000, .zero_stage = 1}, elements,
                    test_params());
    for (const FlatRange& range : dp.owned_ranges()) {
      for (auto i = static_cast<size_t>(range.begin); i < static_cast<size_t>(range.end); ++i) {
        master[i] = static_cast<float>(i);
        compute[i] = BFloat16(static_cast<float>(i));
      }
    }
    dp.gather_parameters(buffer_of(std::span(master))).wait();
    dp.gather_parameters(buffer_of(std::span(compute))).wait();
    for (size_t i = 0; i < master.size(); ++i) {
      check(master[i] == static_cast<float>(i), "a master of another rank");
      check(compute[i].bits == BFloat16(static_cast<float>(i)).bits, "a copy of another rank");
    }
  });
}

TEST(DataParallel, BytesAreThoseOfTheVolumeFormulas) {
  for (int64_t stage : {0, 1}) {
    const auto traffic = std::make_shared<Traffic>();
    run_ranks(4, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Floats gradients(elements);
      const auto counted = counting(world, traffic);
      Stream stream = Stream::worker(device, "comm");
      DataParallel dp(*counted, stream, {.bucket_bytes = 16384, .zero_stage = stage}, elements,
                      test_params());
      dp.begin_slot(gradients, 0, 4);
      dp.end_slot();
      dp.finish();
      dp.gather_parameters(buffer_of(std::span(gradients))).wait();
    });
    // Reduction and gathering each move (n-1)/n of the store per rank, in both stages.
    EXPECT_EQ(traffic->total_bytes(), 2 * 3 * elements * 4);
  }
}

TEST(DataParallel, StatsCountTheBytesThatAreSent) {
  for (bool exact : {false, true}) {
    run_ranks(3, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Floats gradients(elements);
      const auto traffic = std::make_shared<Traffic>();
      const auto counted = counting(world, traffic);
      Stream stream = Stream::worker(device, "comm");
      DataParallel dp(*counted, stream, {.bucket_bytes = 16384, .exact = exact}, elements,
                      test_params());
      run_step(dp, world, {.ranks = 3, .micro_batches = 5}, gradients);
      check(dp.stats().bytes_sent == traffic->total_bytes(), "bytes of the statistics");
      check(dp.stats().reductions > 0 && dp.stats().reduction_seconds > 0, "statistics of a step");
    });
  }
}

// Backward takes 20 ms a layer; links take 12.5 ms a bucket of one layer.
DataParallelStats overlapped(bool worker) {
  constexpr int64_t layers = 16, layer = 8 * 4096;
  DataParallelStats result;
  run_ranks(2, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Floats gradients(layers * layer);
    std::vector<ParamExtent> params;
    for (int64_t i = 0; i < layers; ++i) params.push_back({i * layer, (i + 1) * layer});
    const auto slow = throttled(world, {.bytes_per_second = layer * 4 / 12.5e-3});
    Stream stream = worker ? Stream::worker(device, "comm") : Stream::immediate(device);
    DataParallel dp(*slow, stream, {.bucket_bytes = layer * 4}, layers * layer, params);
    dp.begin_slot(gradients, 0, 2);
    for (int64_t i = layers - 1; i >= 0; --i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      dp.gradient_ready(static_cast<int>(i));
    }
    dp.end_slot();
    dp.finish();
    if (world.rank() == 0) result = dp.stats();
  });
  return result;
}

TEST(DataParallel, OverlapHidesFourFifthsOfTheReduction) {
  const DataParallelStats stats = overlapped(true);
  EXPECT_GE(stats.reduction_seconds, 16 * 12.5e-3);
  EXPECT_LE(stats.exposed_seconds, 0.2 * stats.reduction_seconds)
      << "exposed " << stats.exposed_seconds << " s of " << stats.reduction_seconds << " s";
  RecordProperty("exposed_share", cat(stats.exposed_seconds / stats.reduction_seconds));
}

TEST(DataParallel, WithoutAWorkerEverythingIsExposed) {
  const DataParallelStats stats = overlapped(false);
  EXPECT_GE(stats.exposed_seconds, 0.95 * stats.reduction_seconds);
}

TEST(DataParallel, ARankThatFailsInBackwardEndsTheOthers) {
  try {
    run_ranks(3, [](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Floats gradients(elements);
      Stream stream = Stream::worker(device, "comm");
      DataParallel dp(world, stream, {.bucket_bytes = 16384}, elements, test_params());
      dp.begin_slot(gradients, 0, 3);
      for (int p = static_cast<int>(test_params().size()) - 1; p >= 0; --p) {
        if (world.rank() == 1 && p == 2) fail("loss is not a number at step 7");
        dp.gradient_ready(p);
      }
      dp.end_slot();
      dp.finish();
    });
    FAIL() << "no error";
  } catch (const RankError& error) {
    EXPECT_EQ(error.rank(), 1) << error.what();
    EXPECT_NE(std::string(error.what()).find("loss is not a number"), std::string::npos);
  }
}

TEST(DataParallel, WrongUseIsAnError) {
  run_ranks(1, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Floats gradients(elements), few(10);
    Stream stream = Stream::worker(device, "comm");
    EXPECT_THROW(DataParallel(world, stream, {.zero_stage = 2}, elements, {}), Error);
    DataParallel dp(world, stream, {}, elements, test_params());
    EXPECT_THROW(dp.begin_slot(few, 0, 1), Error);
    EXPECT_THROW(dp.begin_slot(gradients, 1, 2), Error);
    EXPECT_THROW(dp.gradient_ready(0), Error);
    dp.begin_slot(gradients, 0, 2);
    dp.gradient_ready(0);
    EXPECT_THROW(dp.gradient_ready(0), Error);
    EXPECT_THROW(dp.gradient_ready(7), Error);
    EXPECT_THROW(dp.finish(), Error);
    dp.end_slot();
    EXPECT_THROW(dp.finish(), Error);  // one of two slots
    EXPECT_THROW(dp.gather_parameters(buffer_of(std::span(few))), Error);
  });
}

}  // namespace
}  // namespace shoestring
