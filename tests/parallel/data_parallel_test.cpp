#include "parallel/data_parallel.h"

#include <gtest/gtest.h>

#include <thread>

#include "parallel/comm/counting.h"
#include "tests/parallel/data_parallel_case.h"

namespace shoestring {
namespace {

TEST(DataParallel, ExactModeGivesTheSameBitsOnAnyNumberOfRanks) {
  for (int64_t micro_batches : {1, 2, 3, 5, 8}) {
    const Floats wanted = sequential_sum(micro_batches);
    for (int ranks : {1, 2, 3, 4}) {
      for (int64_t stage : {0, 1, 2, 3}) {
        const Plan run{.ranks = ranks,
                       .micro_batches = micro_batches,
                       .config = {.bucket_bytes = 40000, .zero_stage = stage, .exact = true},
                       .shuffled = stage == 1 || stage == 3};
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
      for (int64_t stage : {0, 1, 2, 3}) {
        for (int64_t bytes : {16384, 60000, 1 << 20}) {
          const Plan run{.ranks = ranks,
                         .micro_batches = micro_batches,
                         .config = {.bucket_bytes = bytes,
                                    .zero_stage = stage,
                                    .gradients = GradientLife::step},
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
DataParallelStats overlapped(bool worker, int64_t stage = 0) {
  constexpr int64_t layers = 16, layer = 8 * 4096;
  DataParallelStats result;
  run_ranks(2, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Floats gradients(layers * layer);
    std::vector<ParamExtent> params;
    for (int64_t i = 0; i < layers; ++i) params.push_back({i * layer, (i + 1) * layer});
    const auto slow = throttled(world, {.bytes_per_second = layer * 4 / 12.5e-3});
    Stream stream = worker ? Stream::worker(device, "comm") : Stream::immediate(device);
    DataParallel dp(*slow, stream, {.bucket_bytes = layer * 4, .zero_stage = stage}, layers * layer,
                    params);
    dp.begin_slot(stage < 2 ? std::span<float>(gradients) : std::span<float>(), 0, 2);
    for (int64_t i = layers - 1; i >= 0; --i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (stage > 1) {
        Param p{.info = {.name = "layer", .shape = {layer}}, .offset = i * layer};
        p.index = static_cast<int>(i);
        dp.gradient(p, 0).data<float>()[0] = 1;
      }
      dp.gradient_ready(static_cast<int>(i));
    }
    dp.end_slot();
    dp.finish();
    if (world.rank() == 0) result = dp.stats();
  });
  return result;
}

TEST(DataParallel, OverlapHidesFourFifthsOfTheReduction) {
  for (const int64_t stage : {0, 1, 2}) {
    const DataParallelStats stats = overlapped(true, stage);
    // Stage 0 sends half of a layer each way, the others one way.
    EXPECT_GE(stats.reduction_seconds, 16 * (stage == 0 ? 12.5e-3 : 6.25e-3));
    EXPECT_LE(stats.exposed_seconds, 0.2 * stats.reduction_seconds)
        << "exposed " << stats.exposed_seconds << " s of " << stats.reduction_seconds << " s";
    RecordProperty(cat("exposed_share_", stage),
                   cat(stats.exposed_seconds / stats.reduction_seconds));
  }
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
    EXPECT_THROW(DataParallel(world, stream, {.zero_stage = 4}, elements, {}), Error);
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
    DataParallel sharded(world, stream, {.zero_stage = 2}, elements, test_params());
    sharded.begin_slot({}, 0, 1);
    const Param p = moved_params(0)[1];
    sharded.end_slot();
    EXPECT_THROW(sharded.gradient(p, 0), Error);  // reduced already
    EXPECT_THROW(sharded.gradient(p, 1), Error);
  });
}

}  // namespace
}  // namespace shoestring
