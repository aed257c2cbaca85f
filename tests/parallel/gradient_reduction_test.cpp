#include "parallel/gradient_reduction.h"

#include <gtest/gtest.h>

#include "parallel/comm/counting.h"
#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

constexpr int64_t elements = 3 * 4096 + 100;

// Element i of rank r's gradients: sums in another order have other bits.
float gradient(int rank, size_t i) {
  const float scale = (i + static_cast<size_t>(rank)) % 3 == 0 ? 1e6f : 1e-2f;
  return scale * static_cast<float>(static_cast<int>((i * 37 + 11) % 101) - 50 + rank);
}
std::vector<float> gradients_of(int rank) {
  std::vector<float> x(elements);
  for (size_t i = 0; i < x.size(); ++i) x[i] = gradient(rank, i);
  return x;
}

// ((start + g0) + g1) + ...
float folded(float start, int from, int to, size_t i) {
  for (int r = from; r < to; ++r) start += gradient(r, i);
  return start;
}

struct Case {
  Case(Communicator& world, int replicas, bool sums, bool exact, Device* host = nullptr)
      : inside(world.size() / replicas),
        shard(world.split(world.rank() / inside, world.rank())),
        replicate(world.split(world.rank() % inside, world.rank())),
        layout({0, elements}, {}, 2 * 4096, inside),
        reduction({.shard = *shard,
                   .replicate = replicas > 1 ? replicate.get() : nullptr,
                   .stream = stream,
                   .layout = layout,
                   .sums = sums,
                   .exact = exact,
                   .host = host}) {}
  Buffer whole(std::vector<float>& x, size_t bucket) const {
    const FlatRange r = layout.buckets()[bucket].range;
    return buffer_of(std::span(x)).part(r.begin, r.elements());
  }
  int inside;
  std::unique_ptr<Communicator> shard, replicate;
  Device device{DeviceKind::cpu, 0, 1};
  Stream stream = Stream::worker(device, "comm");
  ShardLayout layout;
  GradientReduction reduction;
};

TEST(GradientReduction, PlainSumsInsideThenAcross) {
  run_ranks(4, [](Communicator& world) {
    for (const int replicas : {1, 2, 4}) {
      Case c(world, replicas, false, false);
      EXPECT_EQ(c.reduction.ranks(), 4);
      EXPECT_EQ(c.reduction.rank(), world.rank());
      std::vector<float> x = gradients_of(world.rank());
      for (size_t b = 0; b < c.layout.buckets().size(); ++b) c.reduction.reduce(b, c.whole(x, b));
      c.stream.synchronize();
      for (const FlatRange& r : c.layout.owned(c.shard->rank())) {
        for (auto i = static_cast<size_t>(r.begin); i < static_cast<size_t>(r.end); ++i) {
          float sum = folded(gradient(0, i), 1, c.inside, i);
          for (int k = 1; k < replicas; ++k) {
            sum += folded(gradient(k * c.inside, i), k * c.inside + 1, (k + 1) * c.inside, i);
          }
          check(x[i] == sum, "a sum of another order");
        }
      }
      for (size_t b = 0; b < c.layout.buckets().size(); ++b) c.reduction.gather(b, c.whole(x, b));
      c.stream.synchronize();
      check(x[5] != 0 && x[elements - 1] != 0, "everybody has everything");
    }
  });
}

TEST(GradientReduction, ExactSumsAreThoseOfOneRankAfterTheOther) {
  for (const bool on_host : {false, true}) {
    run_ranks(4, [&](Communicator& world) {
      Device host(DeviceKind::cpu, 0, 1);
      for (const int replicas : {1, 2, 4}) {
        for (const int64_t senders : {1, 3, 4}) {
          Case c(world, replicas, true, true, on_host ? &host : nullptr);
          c.reduction.clear();
          std::vector<float> x = gradients_of(world.rank());
          for (int step = 0; step < 2; ++step) {
            for (size_t b = 0; b < c.layout.buckets().size(); ++b) {
              c.reduction.add_each(b, c.whole(x, b), senders);
            }
          }
          for (size_t b = 0; b < c.layout.buckets().size(); ++b) {
            c.reduction.write_back(b, c.whole(x, b));
          }
          c.stream.synchronize();
          size_t packed = 0;
          const auto n = static_cast<int>(senders);
          for (const FlatRange& r : c.layout.owned(c.shard->rank())) {
            for (auto i = static_cast<size_t>(r.begin); i < static_cast<size_t>(r.end); ++i) {
              const float want = folded(folded(0, 0, n, i), 0, n, i);
              check(c.reduction.sums()[packed++] == want && x[i] == want, "another sum");
            }
          }
        }
      }
    });
  }
}

TEST(GradientReduction, TheFirstOwnPieceIsTakenAsItIs) {
  run_ranks(1, [](Communicator& world) {
    Case c(world, 1, true, false);
    std::vector<float> x(elements, -0.0f);
    for (int step = 0; step < 2; ++step) {
      c.reduction.clear();
      c.reduction.add_own(0, c.whole(x, 0));
      c.stream.synchronize();
      const size_t last = static_cast<size_t>(elements) - 1;
      EXPECT_TRUE(std::signbit(c.reduction.sums()[last]));  // 0 + -0 would be 0
      c.reduction.add_own(0, c.whole(x, 0));
    }
  });
}

TEST(GradientReduction, BytesAreThoseThatAreSent) {
  for (const int replicas : {1, 2}) {
    const auto traffic = std::make_shared<Traffic>();
    std::atomic<int64_t> told = 0;
    run_ranks(4, [&](Communicator& world) {
      const auto counted = counting(world, traffic);
      Case c(*counted, replicas, true, true);
      barrier(world, c.stream);
      c.stream.synchronize();
      if (world.rank() == 0) traffic->reset();
      barrier(world, c.stream);
      c.stream.synchronize();
      std::vector<float> x = gradients_of(world.rank());
      for (size_t b = 0; b < c.layout.buckets().size(); ++b) {
        c.reduction.add_each(b, c.whole(x, b), 3);
        c.reduction.reduce(b, c.whole(x, b));
        c.reduction.gather(b, c.whole(x, b));
      }
      c.stream.synchronize();
      told += c.reduction.bytes_sent();
    });
    EXPECT_EQ(told, traffic->total_bytes());
  }
}

}  // namespace
}  // namespace shoestring
