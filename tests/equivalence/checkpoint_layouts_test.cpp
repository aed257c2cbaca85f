// Save under one layout of ranks, resume under another: the same bytes, whatever the two are, and
// the next update is that of one rank that never stopped.

#include <gtest/gtest.h>

#include <set>

#include "launcher/config.h"
#include "launcher/loaded_model.h"
#include "launcher/run_config.h"
#include "parallel/covering_array.h"
#include "tests/io/store_fixture.h"
#include "tests/launcher/layout_ranks_fixture.h"

namespace shoestring {
namespace {

constexpr int most_ranks = 24;

const std::vector<std::string> models = {"dense", "tied", "sparse", "latent"};
const std::vector<std::string> optimisers = {"f32", "bf16", "muon", "muon_bf16"};

// The factors of one layout; those of the second one follow those of the first.
const std::vector<Factor> layout_factors = {{"tp", {"1", "2", "4"}}, {"pp", {"1", "2", "3"}},
                                            {"ep", {"1", "2", "4"}}, {"dp", {"1", "2", "3", "5"}},
                                            {"copies", {"1", "2"}},  {"zero", {"0", "1"}},
                                            {"mirror", {"0", "1"}},  {"etp", {"1", "2", "4"}}};

std::vector<Factor> all_factors() {
  std::vector<Factor> all = {{"model", models}, {"optimiser", optimisers}};
  for (const char* side : {"saved.", "resumed."}) {
    for (Factor f : layout_factors) {
      f.name = side + f.name;
      all.push_back(std::move(f));
    }
  }
  return all;
}

// 0 where the row does not say yet.
int64_t value_at(const SettingRow& row, size_t factor) {
  static const std::vector<Factor> all = all_factors();
  return row[factor] == unset ? 0
                              : std::stoll(all[factor].settings[static_cast<size_t>(row[factor])]);
}

bool may_be_used(const SettingRow& row, size_t first) {
  const auto value = [&](size_t f) { return std::max<int64_t>(1, value_at(row, first + f)); };
  const int64_t stage = value(0) * value(3) * value(4), ep = value(2) * value(7);
  if (stage * value(1) > most_ranks) return false;
  const bool sparse = row[0] == unset || row[0] >= 2;
  if (ep > 1 && !sparse) return false;
  const bool all_set = row[first] != unset && row[first + 3] != unset && row[first + 4] != unset;
  if (all_set && stage % ep != 0) return false;
  return value_at(row, first + 6) == 0 || row[first + 1] == unset || value(1) > 1;
}

TestLayout layout_of(const SettingRow& row, size_t first) {
  const auto value = [&](size_t f) { return value_at(row, first + f); };
  TestLayout layout;
  layout.mesh.tp = value(0), layout.mesh.pp = value(1);
  layout.mesh.ep = value(2), layout.mesh.etp = value(7);
  layout.mesh.dp_shard = value(3), layout.mesh.dp_replicate = value(4);
  layout.ranks = static_cast<int>(value(0) * value(1) * value(3) * value(4));
  layout.sharded = value(5) == 1, layout.mirror = value(6) == 1;
  return layout;
}

// One rank that does steps 1 to 3: what is saved after 2 and after 3.
const std::pair<Canonical, Canonical>& unbroken(const std::string& model,
                                                const std::string& optimiser) {
  static std::map<std::string, std::pair<Canonical, Canonical>> known;
  auto& result = known[model + " " + optimiser];
  if (!result.first.empty()) return result;
  TestRanks one({layout_model(model), layout_optim(optimiser)}, {});
  const ScratchFolder folder;
  one.update(1);
  one.update(2);
  one.save(folder / "two", 2);
  one.update(3);
  one.save(folder / "three", 3);
  result = {canonical(Checkpoint::open(folder / "two")),
            canonical(Checkpoint::open(folder / "three"))};
  return result;
}

// Without what Muon makes of parts of matrices in place of whole ones: another direction.
Canonical comparable(Canonical all, const TestModel& test, bool whole_matrices) {
  if (whole_matrices || test.optim.optimizer != "muon") return all;
  for (const ParamInfo& p : parameters_of(test.model, whole_model(test.model))) {
    if (!updated_by_muon(p, test.optim)) continue;
    all.erase("model/" + p.name);
    all.erase("optim/ema/" + p.name);
  }
  return all;
}

void check_pair(const SettingRow& row) {
  const std::string& kind = models[static_cast<size_t>(row[0])];
  const std::string& optimiser = optimisers[static_cast<size_t>(row[1])];
  const TestModel test{layout_model(kind), layout_optim(optimiser)};
  const TestLayout saved = layout_of(row, 2), resumed = layout_of(row, 2 + layout_factors.size());
  const auto& [two, three] = unbroken(kind, optimiser);
  const ScratchFolder folder;
  {
    TestRanks ranks(test, saved);
    ranks.update(1);
    ranks.update(2);
    ranks.save(folder / "a", 2);
  }
  const Checkpoint a = Checkpoint::open(folder / "a");
  const Canonical of_a = canonical(a);
  const bool whole = saved.mesh.tp == 1 && saved.mesh.etp == 1;
  EXPECT_EQ(first_difference(comparable(two, test, whole), comparable(of_a, test, whole)), "");
  TestRanks ranks(test, resumed);
  ranks.restore(a);
  ranks.save(folder / "b", 2);
  EXPECT_EQ(first_difference(of_a, canonical(Checkpoint::open(folder / "b"))), "");
  ranks.update(3);
  ranks.save(folder / "c", 3);
  const bool still = whole && resumed.mesh.tp == 1 && resumed.mesh.etp == 1;
  EXPECT_EQ(first_difference(comparable(three, test, still),
                             comparable(canonical(Checkpoint::open(folder / "c")), test, still)),
            "");
}

TEST(CheckpointLayouts, EveryPairOfSettings) {
  const std::vector<Factor> factors = all_factors();
  const CoveringArray array = covering_array(factors, [](const SettingRow& row) {
    return may_be_used(row, 2) && may_be_used(row, 2 + layout_factors.size());
  });
  EXPECT_GT(array.rows.size(), 20u);
  for (const SettingRow& row : array.rows) {
    SCOPED_TRACE(text_of(factors, row));
    check_pair(row);
  }
}

TestLayout layout(MeshConfig mesh, int ranks, bool sharded = false) {
  return {.mesh = mesh, .ranks = ranks, .sharded = sharded};
}

// Saves after two updates under the one and resumes under the other; both must be as one rank.
void expect_same(const TestModel& test, const TestLayout& from, const TestLayout& to) {
  const ScratchFolder folder;
  TestRanks one(test, {}), saved(test, from), resumed(test, to);
  for (int64_t step : {1, 2}) one.update(step), saved.update(step);
  one.save(folder / "one", 2);
  saved.save(folder / "a", 2);
  const Checkpoint a = Checkpoint::open(folder / "a");
  const Canonical wanted = canonical(Checkpoint::open(folder / "one"));
  EXPECT_EQ(first_difference(wanted, canonical(a)), "");
  resumed.restore(a);
  resumed.save(folder / "b", 2);
  EXPECT_EQ(first_difference(wanted, canonical(Checkpoint::open(folder / "b"))), "");
}

// Megatron-LM #5077: the padding of flat buffers shifted the state on another number of ranks.
TEST(CheckpointLayouts, PaddingShiftsNothing) {
  for (const auto& [from, to] : {std::pair(2, 4), std::pair(4, 3), std::pair(5, 2)}) {
    expect_same({layout_model("dense"), layout_optim("f32")}, layout({}, from, true),
                layout({}, to, true));
  }
}

// More ranks than there is state for: some own nothing (pytorch #102821).
TEST(CheckpointLayouts, RanksMayOwnNothing) {
  TestModel test{layout_model("dense"), layout_optim("f32")};
  test.model.layers = 1;
  expect_same(test, layout({}, 2, true), layout({}, 16, true));
  expect_same(test, layout({}, 16, true), layout({}, 3, true));
}

// nanotron #68, #245, #37: a tied table had no state, whole state was not saved in sharded runs,
// tensors went by their order. Saved once, by the first of the stages that hold it.
TEST(CheckpointLayouts, ATiedTableIsSavedOnceWithItsState) {
  const TestModel test{layout_model("tied"), layout_optim("f32")};
  const ScratchFolder folder;
  TestRanks ranks(test, layout({.tp = 2, .pp = 3}, 12, true));
  ranks.update(1);
  ranks.save(folder.path(), 1);
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  for (const char* name : {"model/", "optim/m/", "optim/v/", "optim/ema/"}) {
    EXPECT_EQ(checkpoint.shape(cat(name, "embedding.weight")), (Shape{61, 32}));
    EXPECT_FALSE(checkpoint.has(cat(name, "head.weight")));
  }
  expect_same(test, layout({.tp = 2, .pp = 3}, 6), layout({}, 1));
  expect_same(test, layout({}, 1), layout({.tp = 2, .pp = 3}, 6));
}

// torchtitan #1136: a vocabulary that the ranks do not divide; here also one that leaves the last
// rank without any row.
TEST(CheckpointLayouts, AnOddVocabulary) {
  for (int64_t vocabulary : {61, 9}) {
    TestModel test{layout_model("dense"), layout_optim("f32")};
    test.model.vocabulary = vocabulary;
    expect_same(test, layout({.tp = 4}, 4), layout({.tp = 2}, 6, true));
    expect_same(test, layout({.tp = 2}, 4, true), layout({.tp = 4}, 8, true));
  }
}

// A head of k and v that several ranks hold is written by the first of them.
TEST(CheckpointLayouts, SharedHeadsAreWrittenOnce) {
  TestModel test{layout_model("dense"), layout_optim("f32")};
  test.model.kv_heads = 1;
  expect_same(test, layout({.tp = 4}, 4), layout({.tp = 2}, 2));
  expect_same(test, layout({.tp = 2}, 4, true), layout({.tp = 4}, 12, true));
}

// Context ranks hold everything alike; experts are shared out over tensor, context and data ranks.
TEST(CheckpointLayouts, ExpertsOverAllAxesOfAStage) {
  const TestModel test{layout_model("latent"), layout_optim("bf16")};
  expect_same(test, layout({.tp = 2, .cp = 2, .dp_replicate = 2, .ep = 4}, 8),
              layout({.cp = 2, .pp = 2, .ep = 2}, 8, true));
  expect_same(test, layout({.cp = 2, .pp = 3, .ep = 2}, 12, true),
              layout({.tp = 4, .cp = 2, .ep = 4}, 8, true));
}

// Slices of experts, alone and beside whole ones: each element has one writer.
TEST(CheckpointLayouts, SlicesOfExperts) {
  const TestModel test{layout_model("latent"), layout_optim("bf16")};
  expect_same(test, layout({.tp = 2, .dp_replicate = 2, .ep = 2, .etp = 2}, 8, true),
              layout({.pp = 3, .etp = 4}, 12, true));
  expect_same(test, layout({.cp = 2, .etp = 2}, 4), layout({.ep = 4}, 4, true));
  expect_same(test, layout({}, 1), layout({.tp = 2, .ep = 4, .etp = 2}, 8));
}

// A rank that forgets that others hold the same ends the save, with the tensor and both ranks.
TEST(CheckpointLayouts, TwoWritersAndNoneAreRefused) {
  const TestModel test{layout_model("dense"), layout_optim("f32")};
  const ScratchFolder folder;
  const auto refusal = [&](TestRanks& ranks) {
    try {
      ranks.save(folder.path(), 1);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("saved");
  };
  TestRanks twice(test, layout({.tp = 2}, 2));
  twice[1].share().earlier = nullptr;
  const std::string both = refusal(twice);
  EXPECT_NE(both.find("elements twice, from 0 to"), std::string::npos) << both;
  EXPECT_NE(both.find("of rank 0 and of rank 1"), std::string::npos) << both;
  TestRanks none(test, layout({}, 2));
  none[0].share().owned[0].replica = 1;
  const std::string missing = refusal(none);
  EXPECT_NE(missing.find("no rank wrote tensor model/embedding.weight [61, 32]"), std::string::npos)
      << missing;
  TestRanks hole(test, layout({.pp = 3}, 3));
  hole[1].share().owned[0].ranges.back().end -= 5;
  const std::string gap = refusal(hole);
  EXPECT_NE(gap.find("has a gap, from"), std::string::npos) << gap;
  EXPECT_FALSE(Checkpoint::latest(folder.path(), nullptr));
}

// What generate, eval, logits and export read: the whole model, from whatever cut.
TEST(CheckpointLayouts, AModelIsLoadedFromAnyLayout) {
  for (const std::string& kind : models) {
    RunConfig config;
    config.model = layout_model(kind);
    config.model.max_positions = 64;
    config.optim = layout_optim("bf16");
    config.train.dtype = "f32";
    const TestModel test{config.model, config.optim};
    const ScratchFolder folder;
    TestRanks saved(test,
                    layout({.tp = 2, .pp = 3, .ep = config.model.moe.on() ? 2 : 1}, 12, true));
    saved.update(1);
    saved.save(folder / "checkpoints", 1, dump_config(config));
    TestRanks one(test, {});
    one.update(1);
    one.save(folder / "one", 1);
    const Canonical wanted = canonical(Checkpoint::open(folder / "one"));
    LoadedModel loaded({.path = folder.path(), .threads = 1});
    for (const Param& p : loaded.store->params()) {
      const auto& bytes = wanted.at("optim/ema/" + p.info.name);
      EXPECT_EQ(std::memcmp(loaded.store->master(p).raw(), bytes.data(), bytes.size()), 0)
          << p.info.name;
    }
    for (const ModelState& s : loaded.store->states()) {
      const auto& bytes = wanted.at("model/" + s.name);
      EXPECT_EQ(std::memcmp(s.values.raw(), bytes.data(), bytes.size()), 0) << s.name;
    }
  }
}

}  // namespace
}  // namespace shoestring
