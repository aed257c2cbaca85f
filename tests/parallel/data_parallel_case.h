#pragma once
// Steps of data parallel ranks (threads) over made-up gradients, and what they sum up to.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <random>

#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/throttled.h"
#include "parallel/data_parallel.h"

namespace shoestring {

using Floats = std::vector<float>;

// A store of seven parameters with padding between some of them.
constexpr int64_t elements = 64 * 700;
inline std::vector<ParamExtent> test_params() {
  return {{0, 9000, true},      {9024, 9100, false},   {9152, 20000, false}, {20032, 20033, false},
          {20096, 30000, true}, {30016, 44000, false}, {44032, 44800, false}};
}

// The gradient of micro-batch g: magnitudes differ so much that the order of a sum shows.
inline void add_product(std::span<float> store, int64_t g) {
  std::mt19937_64 random(static_cast<uint64_t>(g) + 5);
  for (const ParamExtent& p : test_params()) {
    for (int64_t i = p.begin; i < p.end; ++i) {
      const uint64_t h = random();
      const float scale = h % 3 == 0 ? 1e6f : h % 3 == 1 ? 1.0f : 1e-3f;
      store[static_cast<size_t>(i)] += scale * (static_cast<float>(h >> 40) / 8388608.0f - 1);
    }
  }
}

inline Floats sequential_sum(int64_t micro_batches) {
  Floats sum(elements);
  for (int64_t g = 0; g < micro_batches; ++g) {
    Floats x(elements);
    add_product(x, g);
    for (size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
  }
  return sum;
}

// Rank by rank in slots, then over ranks: what plain mode computes.
inline Floats sum_by_ranks(int64_t micro_batches, int ranks) {
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
  int replicas = 1;   // of the ranks: two levels
  int64_t begin = 0;  // of the range in the numbering; everything is moved up by it
  bool host = false;  // offload
  int64_t open = 1;   // slots that overlap
  double slow = 0;    // bytes a second
};

// The parameters, `by` elements further up, as objects.
inline std::vector<Param> moved_params(int64_t by) {
  std::vector<Param> params;
  for (const ParamExtent& p : test_params()) {
    Param param{.info = {.name = cat("p", params.size()), .shape = {p.end - p.begin}},
                .offset = p.begin + by};
    param.elements = p.end - p.begin;
    param.index = static_cast<int>(params.size()) + (by > 0 ? 3 : 0);
    params.push_back(param);
  }
  return params;
}

inline std::vector<ParamExtent> moved_extents(int64_t by) {
  std::vector<ParamExtent> extents = test_params();
  for (ParamExtent& p : extents) {
    p.begin += by;
    p.end += by;
  }
  return extents;
}

// Adds micro-batch g's gradients and announces them.
inline void backward(DataParallel& dp, const Plan& run, const std::vector<int>& order, int64_t slot,
                     std::pair<int64_t, std::span<float>> micro) {
  Floats product(elements);
  add_product(product, micro.first);
  const std::vector<Param> params = moved_params(run.begin);
  for (const int i : order) {
    const Param& p = params[static_cast<size_t>(i)];
    const auto from = static_cast<size_t>(p.offset - run.begin);
    const auto count = static_cast<size_t>(p.elements);
    std::span<float> to;
    Tensor held;
    if (dp.holds_gradients()) {
      held = dp.gradient(p, slot);
      to = held.span<float>();
    } else {
      to = micro.second.subspan(from, count);
    }
    for (size_t k = 0; k < count; ++k) to[k] += product[from + k];
    held = {};
    dp.gradient_ready(p.index, slot, {});
  }
}

// One step of a rank, as the training loop goes.
inline void run_step(DataParallel& dp, Communicator& world, const Plan& run, Floats& gradients) {
  std::vector<int> order(test_params().size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(order.size() - 1 - i);
  if (run.shuffled) {
    std::mt19937_64 random(static_cast<uint64_t>(world.rank()));
    std::shuffle(order.begin(), order.end(), random);
  }
  const std::span<float> store =
      run.config.zero_stage < 2 ? std::span<float>(gradients) : std::span<float>();
  const int64_t slots = dp.slots(run.micro_batches);
  for (int64_t slot = 0; slot < slots + run.open - 1; ++slot) {
    if (slot < slots) {
      dp.begin_slot(store, slot, run.micro_batches);
      if (dp.zero_before(slot)) std::fill(gradients.begin(), gradients.end(), 0.0f);
    }
    const int64_t ends = slot - run.open + 1;
    if (ends < 0) continue;
    if (dp.has_micro_batch(ends, run.micro_batches)) {
      backward(dp, run, order, ends, {ends * world.size() + world.rank(), store});
    }
    dp.end_slot(ends);
  }
  dp.finish();
}

// The two levels of a world.
struct Levels {
  std::unique_ptr<Communicator> slow, shard, replicate;
  Levels(Communicator& world, const Plan& run) {
    Communicator* all = &world;
    if (run.slow > 0) {
      slow = throttled(world, {.bytes_per_second = run.slow});
      all = slow.get();
    }
    const int inside = run.ranks / run.replicas;
    shard = all->split(world.rank() / inside, world.rank());
    replicate = all->split(world.rank() % inside, world.rank());
  }
};

// The reduced gradients, put together from what each rank owns; where ranks own the same elements
// they must agree.
inline Floats reduce(const Plan& run) {
  Floats result(elements), covered(elements);
  std::mutex mutex;
  run_ranks(run.ranks, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1), host(DeviceKind::cpu, 0, 1);
    Floats gradients(elements);
    Levels levels(world, run);
    Stream stream = run.worker ? Stream::worker(device, "comm") : Stream::immediate(device);
    DataParallel dp({.shard = *levels.shard,
                     .replicate = run.replicas > 1 ? levels.replicate.get() : nullptr,
                     .stream = stream,
                     .config = run.config,
                     .range = {run.begin, run.begin + elements},
                     .first_param = run.begin > 0 ? 3 : 0,
                     .params = moved_extents(run.begin),
                     .host = run.host ? &host : nullptr});
    for (int step = 0; step < run.steps; ++step) run_step(dp, world, run, gradients);
    std::lock_guard lock(mutex);
    size_t packed = 0;
    for (const FlatRange& range : dp.owned_ranges()) {
      for (auto i = static_cast<size_t>(range.begin - run.begin);
           i < static_cast<size_t>(range.end - run.begin); ++i) {
        const bool store = run.config.zero_stage < 2 && !run.host;
        const float got = store ? gradients[i] : dp.owned_gradients()[packed++];
        if (covered[i] != 0 && std::memcmp(&result[i], &got, 4) != 0) {
          fail(cat("ranks disagree about element ", i));
        }
        result[i] = got;
        covered[i] = 1;
      }
    }
  });
  for (float c : covered) {
    if (c == 0) ADD_FAILURE() << "an element that nobody owns";
  }
  return result;
}

inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace shoestring
