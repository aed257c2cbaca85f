#include "optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/check.h"
#include "core/param_index.h"
#include "tests/optim/support.h"

namespace shoestring {
namespace {

constexpr uint64_t seed = 11;

UpdateInput input_of(Flat& flat, int64_t step, bool copies = true) {
  UpdateInput input{.step = step, .lr = 0.01, .gradient_scale = 0.5};
  input.master = {flat.master, 0};
  input.gradients = {flat.gradients, 0};
  if (copies) input.copy = {flat.copy, 0};
  return input;
}

std::vector<float> values_of(const StateTensor& s) {
  if (s.values.dtype() == Dtype::f32) {
    return {s.values.span<float>().begin(), s.values.span<float>().end()};
  }
  std::vector<float> all;
  for (BFloat16 x : s.values.span<BFloat16>()) all.push_back(static_cast<float>(x));
  return all;
}

// Trains `steps` steps over `ranges`, one Optimizer each.
Flat train(const std::vector<Param>& params, const OptimConfig& config,
           const std::vector<std::vector<FlatRange>>& ranks, int threads, int64_t steps = 4) {
  Flat flat(params, 1);
  Device device(DeviceKind::cpu, 0, threads);
  std::vector<std::unique_ptr<Optimizer>> optimizers;
  for (const auto& ranges : ranks) {
    optimizers.push_back(std::make_unique<Optimizer>(device, params, config, ranges, seed));
  }
  for (int64_t t = 1; t <= steps; ++t) {
    flat.set_gradients(params, 2, t);
    for (auto& optimizer : optimizers) optimizer->update(input_of(flat, t));
  }
  return flat;
}

std::vector<OptimConfig> all_configs() {
  std::vector<OptimConfig> configs;
  for (const char* optimizer : {"adamw", "muon"}) {
    for (const char* moments : {"f32", "bf16"}) {
      for (bool stochastic : {false, true}) {
        OptimConfig config;
        config.optimizer = optimizer;
        config.moments = moments;
        config.stochastic_rounding = stochastic;
        configs.push_back(config);
      }
    }
  }
  return configs;
}

TEST(Optimizer, ShardsAndThreadsChangeNoBit) {
  const std::vector<Param> params = small_model();
  const int64_t n = flat_elements(params);
  for (const OptimConfig& config : all_configs()) {
    const Flat whole = train(params, config, {{{0, n}}}, 1);
    std::vector<std::vector<std::vector<FlatRange>>> cuts = {{{{0, n}}}};
    for (int ranks : {2, 3, 5}) {
      cuts.emplace_back();
      for (const FlatRange& range : whole_parameters(params, ranks)) cuts.back().push_back({range});
    }
    if (config.optimizer == "adamw") {
      cuts.push_back({{{0, 7}, {1000, 1001}}, {{7, 1000}, {1001, n}}});
    }
    for (const auto& cut : cuts) {
      const Flat sharded = train(params, config, cut, 3);
      EXPECT_TRUE(same_bits(whole.master, sharded.master))
          << config.optimizer << config.moments.value_or("");
      EXPECT_TRUE(same_bits(whole.copy, sharded.copy))
          << config.optimizer << config.moments.value_or("");
    }
  }
}

// What rounding draws depends on the element of the whole matrix, whoever holds it.
TEST(Optimizer, CutMatricesRoundAsTheWholeOne) {
  OptimConfig config;
  config.moments = "bf16";
  config.stochastic_rounding = true;
  const std::vector<Param> whole = make_params({info("w", {16, 12})});
  ParamInfo part = info("w", {8, 6});
  part.shard = {
      .whole = {16, 12},
      .rows = {{.local = 0, .global = 4, .count = 3}, {.local = 3, .global = 9, .count = 5}},
      .first_column = 6};
  const std::vector<Param> cut = make_params({part});
  Flat all(whole, 1), some(cut, 1);
  Device device;
  Optimizer a(device, whole, config, {{{0, 192}}}, seed), b(device, cut, config, {{{0, 48}}}, seed);
  std::vector<size_t> places;
  for (int64_t i = 0; i < 48; ++i) {
    const WholeRun run = whole_run(part, i, i + 1);
    places.push_back(static_cast<size_t>(run.whole));
    some.master[static_cast<size_t>(i)] = all.master[places.back()];
  }
  for (int64_t t = 1; t <= 3; ++t) {
    all.set_gradients(whole, 2, t);
    for (size_t i = 0; i < 48; ++i) some.gradients[i] = all.gradients[places[i]];
    a.update(input_of(all, t));
    b.update(input_of(some, t));
  }
  for (size_t i = 0; i < 48; ++i) {
    EXPECT_EQ(some.master[i], all.master[places[i]]) << i;
    EXPECT_EQ(static_cast<float>(some.copy[i]), static_cast<float>(all.copy[places[i]])) << i;
  }
}

// A shard's own buffers, whose first element is not element 0 of the model.
TEST(Optimizer, WorksOnBuffersOfAShardOnly) {
  const std::vector<Param> params = small_model();
  const FlatRange range{500, 3000};
  Flat flat(params, 1), whole(params, 1);
  Device device;
  Optimizer a(device, params, {}, {{range}}, seed), b(device, params, {}, {{range}}, seed);
  a.update(input_of(whole, 1, false));
  std::vector<float> p(flat.master.begin() + 500, flat.master.begin() + 3000);
  const std::vector<float> g(flat.gradients.begin() + 500, flat.gradients.begin() + 3000);
  UpdateInput input{.step = 1, .lr = 0.01, .gradient_scale = 0.5};
  input.master = {p, 500};
  input.gradients = {g, 500};
  b.update(input);
  for (size_t i = 0; i < p.size(); ++i) ASSERT_EQ(p[i], whole.master[i + 500]);
  for (size_t i = 0; i < flat.master.size(); ++i) {  // nothing else moved
    if (i < 500 || i >= 3000) {
      ASSERT_EQ(whole.master[i], flat.master[i]);
    }
  }
  input.gradients = {std::span(g).first(100), 500};
  EXPECT_THROW(b.update(input), Error);
}

TEST(Optimizer, ZeroGradientsDecayOnlyWhatDecays) {
  const std::vector<Param> params = small_model();
  for (const char* optimizer : {"adamw", "muon"}) {
    OptimConfig config{.optimizer = optimizer};
    Flat flat(params, 1), before(params, 1);
    flat.gradients.assign(flat.gradients.size(), 0);
    Device device;
    const FlatRange all{0, flat_elements(params)};
    Optimizer(device, params, config, {{all}}, seed).update(input_of(flat, 1));
    for (const Param& p : params) {
      for (int64_t i = p.offset; i < p.offset + p.elements; ++i) {
        const float old = before.master[static_cast<size_t>(i)];
        const float now = flat.master[static_cast<size_t>(i)];
        if (p.info.name == "gain" || p.info.name == "bias") {
          ASSERT_EQ(now, old) << p.info.name;
        } else {  // base lr, also where the multiplier is not 1
          ASSERT_NEAR(now, old * (1 - 0.01 * 0.1), 1e-7) << p.info.name;
        }
      }
    }
  }
}

TEST(Optimizer, LearningRateMultiplierScalesTheStep) {
  auto moved = [](double multiplier) {
    std::vector<ParamInfo> infos = {info("w", {8, 8})};
    infos[0].lr_multiplier = multiplier;
    infos[0].decay = false;
    const std::vector<Param> params = make_params(infos);
    Flat flat(params, 1), before(params, 1);
    Device device;
    Optimizer(device, params, {}, {{{0, 64}}}, seed).update(input_of(flat, 1, false));
    return flat.master[5] - before.master[5];
  };
  EXPECT_NEAR(moved(0.25), moved(1) / 4, 1e-7);
  EXPECT_NEAR(std::abs(moved(1)), 0.01, 1e-6);  // the first Adam step has size lr
}

// As a checkpoint does it: by parameter, kind and element. Returns how many were copied.
int64_t copy_common(const StateTensor& saved, const std::vector<StateTensor>& own) {
  int64_t copied = 0;
  for (const StateTensor& piece : own) {
    const int64_t begin = std::max(piece.begin, saved.begin), end = std::min(piece.end, saved.end);
    if (piece.name != saved.name || piece.kind != saved.kind || begin >= end) continue;
    const auto size = static_cast<int64_t>(size_of(saved.values.dtype()));
    std::memcpy(piece.values.raw() + (begin - piece.begin) * size,
                saved.values.raw() + (begin - saved.begin) * size,
                static_cast<size_t>((end - begin) * size));
    copied += end - begin;
  }
  return copied;
}

TEST(Optimizer, StateMovesToAnotherSharding) {
  const std::vector<Param> params = small_model();
  const int64_t n = flat_elements(params);
  for (const OptimConfig& config : all_configs()) {
    const Flat want = train(params, config, {{{0, n}}}, 1, 5);
    // Three steps on two shards, two more on three.
    Device device;
    Flat flat(params, 1);
    std::vector<std::unique_ptr<Optimizer>> first, second;
    for (const FlatRange& range : whole_parameters(params, 2)) {
      first.push_back(
          std::make_unique<Optimizer>(device, params, config, std::span(&range, 1), seed));
    }
    for (int64_t t = 1; t <= 3; ++t) {
      flat.set_gradients(params, 2, t);
      for (auto& o : first) o->update(input_of(flat, t));
    }
    int64_t wanted = 0, copied = 0;
    for (const FlatRange& range : whole_parameters(params, 3)) {
      second.push_back(
          std::make_unique<Optimizer>(device, params, config, std::span(&range, 1), seed));
      const std::vector<StateTensor> own = second.back()->state();
      for (const StateTensor& s : own) wanted += s.end - s.begin;
      for (auto& o : first) {
        for (const StateTensor& saved : o->state()) copied += copy_common(saved, own);
      }
    }
    EXPECT_EQ(copied, wanted);
    for (int64_t t = 4; t <= 5; ++t) {
      flat.set_gradients(params, 2, t);
      for (auto& o : second) o->update(input_of(flat, t));
    }
    EXPECT_TRUE(same_bits(want.master, flat.master))
        << config.optimizer << config.moments.value_or("");
    EXPECT_TRUE(same_bits(want.copy, flat.copy)) << config.optimizer << config.moments.value_or("");
  }
}

TEST(Optimizer, CopiesComeBackFromMasters) {
  const std::vector<Param> params = small_model();
  const FlatRange all{0, flat_elements(params)};
  for (const OptimConfig& config : all_configs()) {
    Flat flat = train(params, config, {{all}}, 2);
    const std::vector<BFloat16> want = flat.copy;
    flat.copy.assign(flat.copy.size(), BFloat16(0.0f));
    Device device;
    Optimizer(device, params, config, {{all}}, seed).refresh_copies(input_of(flat, 4));
    EXPECT_TRUE(same_bits(flat.copy, want));
  }
}

// Two moments an element for AdamW, one for Muon, rounded up to the 64 bytes of a block.
// Weights that stay put are rounded anew in every step, so that the copies are right on average.
TEST(Optimizer, EachStepRoundsWithBitsOfItsOwn) {
  const std::vector<Param> params = make_params({info("w", {64, 64})});
  for (const char* rule : {"adamw", "muon"}) {
    const OptimConfig config{.optimizer = rule, .stochastic_rounding = true};
    Flat flat(params, 1);
    flat.master.assign(flat.master.size(), 1 + 0x1p-8f);  // in the middle between two bf16 values
    Device device;
    const FlatRange all{0, flat_elements(params)};
    Optimizer optimizer(device, params, config, {{all}}, seed);
    std::vector<std::vector<BFloat16>> copies;
    for (int64_t t = 1; t <= 2; ++t) {
      UpdateInput input = input_of(flat, t);
      input.lr = 0;
      optimizer.update(input);
      copies.push_back(flat.copy);
    }
    int64_t differ = 0;
    for (size_t i = 0; i < 4096; ++i) differ += copies[0][i].bits != copies[1][i].bits;
    EXPECT_NEAR(static_cast<double>(differ) / 4096, 0.5, 5 * 0.5 / 64) << rule;
  }
}

TEST(Optimizer, TheLedgerHoldsTheMomentsOfTheOwnedElements) {
  const std::vector<Param> params = small_model();
  const FlatRange owned{0, params[2].offset};  // embedding and qkv
  for (const OptimConfig& config : all_configs()) {
    Device device;
    const Optimizer optimizer(device, params, config, {{owned}}, seed);
    const int64_t size = config.moments == "bf16" ? 2 : 4;
    const int64_t tables = config.optimizer == "muon" ? 1 : 2;
    const int64_t bytes = 2 * 37 * 24 * size + tables * 72 * 24 * size;
    EXPECT_GE(device.ledger().current(MemoryKind::moments), bytes);
    EXPECT_LT(device.ledger().current(MemoryKind::moments), bytes + 4 * 64);
  }
}

TEST(Optimizer, NamesStateByParameterAndKind) {
  const std::vector<Param> params = small_model();
  Device device;
  const FlatRange all{0, flat_elements(params)};
  OptimConfig config{.optimizer = "muon"};
  Optimizer optimizer(device, params, config, {{all}}, seed);
  Flat flat(params, 1);
  optimizer.update(input_of(flat, 1));
  int64_t momenta = 0, firsts = 0;
  for (const StateTensor& s : optimizer.state()) {
    if (s.kind == "momentum") {
      EXPECT_TRUE(s.name == "qkv" || s.name == "up" || s.name == "down") << s.name;
      momenta += s.end - s.begin;
    }
    if (s.kind == "m") {
      EXPECT_TRUE(s.name == "embedding" || s.name == "gain" || s.name == "bias") << s.name;
      firsts += s.end - s.begin;
      EXPECT_NE(values_of(s)[0], 0);
    }
  }
  EXPECT_EQ(momenta, 72 * 24 + 120 * 93 + 24 * 120);
  EXPECT_EQ(firsts, 37 * 24 + 24 + 93);
}

// Least squares on a real store: both rules reach the target, gains too, and the bf16 copies
// follow.
TEST(Optimizer, TrainsAParameterStore) {
  for (const char* rule : {"adamw", "muon"}) {
    Device device(DeviceKind::cpu, 0, 1);
    ParamStore store(device, {info("w", {24, 40}), info("gain", {24}, ParamClass::gain)},
                     Dtype::bf16);
    store.initialise(1);
    const OptimConfig config{.optimizer = rule, .weight_decay = 0};
    const FlatRange all{0, store.elements()};
    Optimizer optimizer(device, store.params(), config, {&all, 1}, seed);
    UpdateInput input;
    input.master = {store.master(), 0};
    input.gradients = {store.gradients(), 0};
    input.copy = {store.compute_copy(), 0};
    auto distance = [&] {
      double sum = 0;
      for (const Param& p : store.params()) {
        for (int64_t i = p.offset; i < p.offset + p.elements; ++i) {
          const double target = std::sin(static_cast<double>(i));
          const double d = input.master.values[static_cast<size_t>(i)] - target;
          store.gradients()[static_cast<size_t>(i)] = static_cast<float>(d);
          sum += d * d;
        }
      }
      return std::sqrt(sum / static_cast<double>(store.parameters()));
    };
    // The target has rank 2, and Muon moves each singular value by at most lr * 0.2 sqrt(40).
    const double peak = config.optimizer == "muon" ? 0.2 : 0.03;
    const double before = distance();
    for (input.step = 1; input.step <= 300; ++input.step) {
      input.lr = peak * (1 - static_cast<double>(input.step) / 301);
      optimizer.update(input);
      distance();
    }
    EXPECT_LT(distance(), 0.05 * before) << rule;
    for (const Param& p : store.params()) {
      const BFloat16 copy = store.weight(p).data<BFloat16>()[3];
      EXPECT_EQ(copy.bits, BFloat16(store.master(p).data<float>()[3]).bits);
    }
  }
}

TEST(Optimizer, RefusesWhatItDoesNotKnow) {
  const std::vector<Param> params = small_model();
  Device device;
  EXPECT_THROW(Optimizer(device, params, {.optimizer = "sgd"}, {}, seed), Error);
  EXPECT_THROW(Optimizer(device, params, {.moments = "i8"}, {}, seed), Error);
  const std::vector<FlatRange> reversed = {{100, 200}, {0, 50}};
  EXPECT_THROW(Optimizer(device, params, {}, reversed, seed), Error);
  Flat flat(params, 1);
  const FlatRange all{0, 64};
  Optimizer optimizer(device, params, {}, {{all}}, seed);
  EXPECT_THROW(optimizer.update(input_of(flat, 0)), Error);
}

}  // namespace
}  // namespace shoestring
