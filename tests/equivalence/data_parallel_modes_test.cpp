// Modes of data parallelism that change no bit, or the same ones in all stages.

#include "tests/parallel/data_parallel_case.h"

namespace shoestring {
namespace {

// A reduction a slot: the sums of slots, in their order, each over the ranks.
TEST(DataParallel, ReducingEverySlotGivesTheSameBitsInAllStages) {
  for (int ranks : {1, 2, 3}) {
    for (int64_t micro_batches : {1, 3, 7}) {
      Floats wanted(elements);
      for (int64_t first = 0; first < micro_batches; first += ranks) {
        Floats slot(elements);
        for (int64_t g = first; g < first + ranks; ++g) {
          Floats x(elements);
          if (g < micro_batches) add_product(x, g);
          for (size_t i = 0; i < x.size(); ++i) slot[i] = g == first ? x[i] : slot[i] + x[i];
        }
        for (size_t i = 0; i < slot.size(); ++i) {
          wanted[i] = first == 0 ? slot[i] : wanted[i] + slot[i];
        }
      }
      for (int64_t stage : {0, 1, 2, 3}) {
        const Plan run{
            .ranks = ranks,
            .micro_batches = micro_batches,
            .config = {.bucket_bytes = 40000,
                       .zero_stage = stage,
                       .gradients = stage < 2 ? GradientLife::slot : GradientLife::automatic},
            .shuffled = true,
            .steps = 2};
        EXPECT_TRUE(same_bits(reduce(run), wanted))
            << ranks << " ranks, " << micro_batches << " micro-batches, stage " << stage;
      }
    }
  }
}

TEST(DataParallel, TwoLevelsGiveTheBitsOfOneInExactMode) {
  for (const auto& [ranks, replicas] : {std::pair(4, 2), std::pair(4, 4), std::pair(6, 2)}) {
    for (int64_t micro_batches : {1, 3, 5, 9}) {
      for (int64_t stage : {0, 1, 2, 3}) {
        Plan run{.ranks = ranks,
                 .micro_batches = micro_batches,
                 .config = {.bucket_bytes = 40000, .zero_stage = stage, .exact = true},
                 .shuffled = true,
                 .replicas = replicas};
        EXPECT_TRUE(same_bits(reduce(run), sequential_sum(micro_batches)))
            << ranks << " ranks, " << micro_batches << " micro-batches, stage " << stage;
        // In plain mode all stages agree, and replicas with one another (reduce() looks).
        run.config.exact = false;
        run.config.gradients = GradientLife::step;
        const Floats plain = reduce(run);
        run.config.zero_stage = 0;
        EXPECT_TRUE(same_bits(plain, reduce(run))) << stage;
      }
    }
  }
}

TEST(DataParallel, PartOfTheNumbering) {
  for (int64_t stage : {0, 1, 2, 3}) {
    for (const bool exact : {false, true}) {
      Plan run{.ranks = 3,
               .micro_batches = 5,
               .config = {.bucket_bytes = 40000, .zero_stage = stage, .exact = exact}};
      const Floats wanted = reduce(run);
      run.begin = 64 * 11;
      EXPECT_TRUE(same_bits(reduce(run), wanted)) << stage;
    }
  }
}

TEST(DataParallel, GradientsOnTheHostHaveTheSameBits) {
  EXPECT_THROW(reduce({.host = true}), Error);  // whose share of what?
  for (int64_t stage : {1, 2, 3}) {
    for (const bool exact : {false, true}) {
      Plan run{.ranks = 4,
               .micro_batches = 9,
               .config = {.bucket_bytes = 40000, .zero_stage = stage, .exact = exact},
               .steps = 2,
               .replicas = 2};
      const Floats wanted = reduce(run);
      run.host = true;
      EXPECT_TRUE(same_bits(reduce(run), wanted)) << stage << exact;
    }
  }
}

// Pipelines: forward passes of later micro-batches begin before earlier ones end.
TEST(DataParallel, SlotsMayOverlap) {
  for (int64_t stage : {0, 1, 2, 3}) {
    for (const bool exact : {false, true}) {
      Plan run{.ranks = 2,
               .micro_batches = 8,
               .config = {.bucket_bytes = 40000, .zero_stage = stage, .exact = exact}};
      const Floats wanted = reduce(run);
      run.config.slots_overlap = true;
      run.open = 3;
      EXPECT_TRUE(same_bits(reduce(run), wanted)) << stage << exact;
    }
  }
}

// DeepSpeed #5606: a bucket is filled again while it is being reduced. Megatron #4609: memory that
// is used again is not zero. Links are slower than backward here.
TEST(DataParallel, NothingIsOverwrittenWhileLinksAreSlow) {
  for (int64_t stage : {0, 1, 2, 3}) {
    for (const bool exact : {false, true}) {
      Plan run{.ranks = 2,
               .micro_batches = 6,
               .config = {.bucket_bytes = 40000, .zero_stage = stage, .exact = exact},
               .worker = false,
               .steps = 2};
      const Floats wanted = reduce(run);
      run.worker = true;
      run.slow = 20e6;
      EXPECT_TRUE(same_bits(reduce(run), wanted)) << stage << exact;
    }
  }
}

// Ranks that are not data ranks: two that share each sequence (four ranks, two micro-batches at a
// time), or one for the experts of two data ranks (two ranks, four at a time). Part r of slot s is
// product 10 s + r.
TEST(DataParallel, RanksMayBePartsOrGroupsOfDataRanks) {
  struct Mapping {
    int ranks;
    int64_t data_ranks, micro_batches;
    std::vector<std::vector<int64_t>> senders;  // by slot
  };
  for (const Mapping& m :
       {Mapping{4, 2, 3, {{0, 1, 2, 3}, {0, 1}}}, Mapping{2, 4, 6, {{0, 1}, {0}}}}) {
    Floats wanted(elements);
    for (size_t slot = 0; slot < m.senders.size(); ++slot) {
      for (const int64_t r : m.senders[slot]) {
        Floats x(elements);
        add_product(x, 10 * static_cast<int64_t>(slot) + r);
        for (size_t i = 0; i < x.size(); ++i) wanted[i] += x[i];
      }
    }
    for (const int64_t stage : {1, 3}) {
      run_ranks(m.ranks, [&](Communicator& world) {
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::worker(device, "comm");
        const int64_t data_rank = world.rank() * m.data_ranks / m.ranks;
        DataParallel dp({.shard = world,
                         .stream = stream,
                         .config = {.bucket_bytes = 40000, .zero_stage = stage, .exact = true},
                         .range = {0, elements},
                         .params = moved_extents(0),
                         .data_ranks = m.data_ranks,
                         .data_rank = data_rank});
        check(dp.slots(m.micro_batches) == 2, "two slots");
        Floats store(elements);
        const std::span<float> flat = stage < 2 ? std::span<float>(store) : std::span<float>();
        for (int64_t slot = 0; slot < 2; ++slot) {
          dp.begin_slot(flat, slot, m.micro_batches);
          std::fill(store.begin(), store.end(), 0.0f);
          const auto& senders = m.senders[static_cast<size_t>(slot)];
          const bool works =
              std::find(senders.begin(), senders.end(), world.rank()) != senders.end();
          check(works == dp.has_micro_batch(slot, m.micro_batches), "who has a micro-batch");
          if (works) {
            backward(dp, {}, {6, 5, 4, 3, 2, 1, 0}, slot, {10 * slot + world.rank(), flat});
          }
          dp.end_slot();
        }
        dp.finish();
        size_t packed = 0;
        for (const FlatRange& r : dp.owned_ranges()) {
          for (auto i = static_cast<size_t>(r.begin); i < static_cast<size_t>(r.end); ++i) {
            const float got = stage < 2 ? store[i] : dp.owned_gradients()[packed++];
            check(std::memcmp(&got, &wanted[i], sizeof(float)) == 0, "another sum");
          }
        }
      });
    }
  }
}

}  // namespace
}  // namespace shoestring
