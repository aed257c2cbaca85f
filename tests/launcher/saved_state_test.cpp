#include "launcher/saved_state.h"

#include <gtest/gtest.h>

#include "core/model/parameters.h"
#include "launcher/model_source.h"
#include "parallel/tensor_parallel.h"
#include "tests/launcher/folder_model_fixture.h"
#include "tests/launcher/layout_ranks_fixture.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

// The parameter as rank r of t holds it, at the begin of a store.
Param part(const ModelConfig& model, const std::string& name, int r, int t) {
  std::vector<ParamInfo> mine;
  for (ParamInfo& p : parameters_of(model, whole_model(model))) {
    if (p.name == name) mine.push_back(std::move(p));
  }
  Param p{.info = shard_parameters(model, mine, r, t).at(0)};
  p.elements = p.info.shape.elements();
  return p;
}

std::vector<FlatRange> written(const ModelConfig& model, const std::string& name, int r, int t) {
  const Param p = part(model, name, r, t);
  return written_ranges(
      p, {.owned = {{.ranges = {{0, p.elements}}}}, .earlier = EarlierHolders(model, r, t)});
}

using Ranges = std::vector<FlatRange>;

TEST(SavedState, WhatTensorRanksHoldAlikeIsWrittenByTheFirst) {
  const ModelConfig model = layout_model("dense");
  EXPECT_EQ(written(model, "layers.0.mlp_norm.gain", 0, 2), (Ranges{{0, 32}}));
  EXPECT_EQ(written(model, "layers.0.mlp_norm.gain", 1, 2), Ranges{});
  // Cut without anything in common: all that a rank holds.
  for (int r : {0, 1}) {
    EXPECT_EQ(written(model, "layers.0.mlp.down.weight", r, 2), (Ranges{{0, 32 * 24}}));
    EXPECT_EQ(written(model, "layers.0.attention.qkv.weight", r, 2), (Ranges{{0, 32 * 32}}));
  }
  EXPECT_EQ(written(model, "head.weight", 1, 2), (Ranges{{0, 30 * 32}}));
  // Two heads of k and v over four ranks: ranks 1 and 3 write their head of q alone.
  for (int r = 0; r < 4; ++r) {
    const int64_t heads = r % 2 == 0 ? 3 : 1;
    EXPECT_EQ(written(model, "layers.0.attention.qkv.weight", r, 4), (Ranges{{0, heads * 8 * 32}}));
    EXPECT_EQ(written(model, "layers.0.attention.qkv.bias", r, 4), (Ranges{{0, heads * 8}}));
  }
}

TEST(SavedState, OwnersWriteTheirShareOfWhatIsTheirs) {
  const ModelConfig model = layout_model("dense");
  Param p = part(model, "layers.0.attention.qkv.weight", 3, 4);  // writes rows 0 to 7 of 24
  p.offset = 1000;
  SavedShare share{.owned = {{.ranges = {{0, 1100}, {1200, 1300}, {5000, 6000}}}},
                   .earlier = EarlierHolders(model, 3, 4)};
  EXPECT_EQ(written_ranges(p, share), (Ranges{{0, 100}, {200, 256}}));
  share.earlier = nullptr;
  EXPECT_EQ(written_ranges(p, share), (Ranges{{0, 100}, {200, 300}}));
  share.owned[0].replica = 1;  // a copy of the shares
  EXPECT_EQ(written_ranges(p, share), Ranges{});
  share.owned.push_back({.ranges = {{1100, 1150}}});  // another group's
  EXPECT_EQ(written_ranges(p, share), (Ranges{{100, 150}}));
}

TEST(SavedState, WhatAnEarlierStageHoldsIsNotWritten) {
  const ModelConfig model = layout_model("tied");
  const Param p = part(model, "embedding.weight", 1, 2);
  const OwnedRanges all{.ranges = {{0, p.elements}}};
  EXPECT_EQ(written_ranges(p, {.owned = {all}, .earlier = EarlierHolders(model, 1, 2)}),
            (Ranges{{0, p.elements}}));
  EXPECT_EQ(written_ranges(
                p, {.owned = {all}, .earlier = EarlierHolders(model, 1, 2, {"embedding.weight"})}),
            Ranges{});
}

// An earlier rank's rows may begin before ours, end behind them, or be several of our runs.
TEST(SavedState, RowsOfEarlierRanksAreTakenAwayInAnyOrder) {
  Param p{.info = {.name = "w", .shape = {6, 2}}, .elements = 12};
  p.info.shard = {.whole = {20, 2}, .rows = {{0, 2, 3}, {3, 10, 2}, {5, 15, 1}}};
  const auto with = [&](std::vector<RowRun> rows) {
    ParamInfo e{.name = "w", .shape = {rows.back().local + rows.back().count, 2}};
    e.shard = {.whole = {20, 2}, .rows = std::move(rows)};
    return e;
  };
  const auto left = [&](std::vector<ParamInfo> earlier) {
    return written_ranges(p, {.owned = {{.ranges = {{0, 12}}}},
                              .earlier = [&](const ParamInfo&) { return earlier; }});
  };
  EXPECT_EQ(left({}), (Ranges{{0, 12}}));
  EXPECT_EQ(left({with({{0, 3, 8}})}), (Ranges{{0, 2}, {8, 12}}));
  EXPECT_EQ(left({with({{0, 0, 20}})}), Ranges{});
  EXPECT_EQ(left({with({{0, 11, 9}}), with({{0, 3, 1}})}), (Ranges{{0, 2}, {4, 8}}));
  EXPECT_EQ(left({with({{0, 5, 5}, {5, 12, 3}})}), (Ranges{{0, 12}}));
  // Other columns are nobody's business; some of ours cannot be taken away row by row.
  ParamInfo beside = with({{0, 0, 20}});
  beside.shard.whole = {20, 4}, p.info.shard.whole = {20, 4};
  beside.shard.first_column = 2;
  EXPECT_EQ(left({beside}), (Ranges{{0, 12}}));
  beside.shard.first_column = 1;
  EXPECT_THROW(left({beside}), Error);
}

TEST(SavedState, PiecesAreBoxesOfTheWhole) {
  const TestModel test{layout_model("dense"), layout_optim("muon_bf16")};
  TestLayout layout{.mesh = {.tp = 2}, .ranks = 2};
  const Mesh mesh(layout.mesh, layout.ranks);
  TestRank rank(test, layout, mesh, 1);
  const std::vector<StateTensor> state = rank.state();
  std::map<std::string, std::vector<TensorPiece>> pieces;
  for (TensorPiece& p : pieces_of(rank.store(), {rank.store().master()}, state, rank.share())) {
    pieces[p.name].push_back(std::move(p));
  }
  EXPECT_FALSE(pieces.contains("model/final_norm.gain"));  // the first rank's
  const TensorPiece& down = pieces.at("model/layers.2.mlp.down.weight").at(0);
  EXPECT_EQ(down.shape, (Shape{32, 48}));
  EXPECT_EQ(text_of(down.part()), "elements 0 to 768 of rows 0-31, columns 24-47");
  EXPECT_EQ(down.data, rank.store().master(rank.store().param("layers.2.mlp.down.weight")).raw());
  // Muon's momentum has a tensor for gate and one for up.
  const auto& momentum = pieces.at("optim/momentum/layers.2.mlp.gate_up.weight");
  ASSERT_EQ(momentum.size(), 2u);
  EXPECT_EQ(momentum[1].dtype, Dtype::bf16);
  EXPECT_EQ(text_of(momentum[0].part()), cat("elements ", 24 * 32, " to ", 48 * 32));
  EXPECT_EQ(text_of(momentum[1].part()), cat("elements ", 72 * 32, " to ", 96 * 32));
  const auto& table = pieces.at("optim/v/embedding.weight").at(0);
  EXPECT_EQ(text_of(table.part()), cat("elements ", 31 * 32, " to ", 61 * 32));
}

TEST(SavedState, NamesAllThatBelongsToARun) {
  const ModelConfig model = layout_model("latent");
  std::map<std::string, Shape> names;
  for (auto& [name, shape] : saved_tensors(model, layout_optim("muon"))) names[name] = shape;
  EXPECT_EQ(names.at("model/layers.1.moe.router.bias"), (Shape{4}));
  EXPECT_EQ(names.at("optim/momentum/layers.1.moe.experts.down.weight"), (Shape{4 * 32, 12}));
  EXPECT_TRUE(names.contains("optim/m/embedding.weight"));
  EXPECT_FALSE(names.contains("optim/momentum/embedding.weight"));
  EXPECT_TRUE(names.contains("optim/ema/mtp.0.projection.weight"));
  EXPECT_EQ(saved_tensors(model).size(),
            parameters_of(model, whole_model(model)).size() + 3);  // two blocks, one module
}

// train.init_from: a rank's parts, and those of a stage, from a folder and from a checkpoint.
TEST(SavedState, WeightsOfAFolderGoWhereTheyBelong) {
  const ModelSource source(golden_folder("qwen2"));
  const ModelConfig& model = source.config().model;
  Device device;
  ParamStore whole(device, parameters_of(model, whole_model(model)), Dtype::f32);
  source.restore(whole, "");
  const std::vector<Chunk> stages = cut(model, {1, model.layers - 1});
  for (const Chunk& stage : stages) {
    for (int r : {0, 1}) {
      ParamStore store(device, shard_parameters(model, parameters_of(model, stage), r, 2),
                       Dtype::f32);
      EXPECT_THROW(source.restore(store, ""), Error);  // names are missing
      source.restore(store, "", &model);
      for (const Param& p : store.params()) {
        const Param& all = whole.param(p.info.name);
        const BoxRange mine{box_of(p.info), 0, p.elements};
        for (const BoxRectangle& area : rectangles_of(all.info.shape, mine)) {
          for (int64_t i = 0; i < area.rows; ++i) {
            const int64_t from = (area.row + i) * columns_of(all.info.shape) + area.column;
            ASSERT_EQ(std::memcmp(store.master(p).data<float>() + area.at + i * area.stride,
                                  whole.master(all).data<float>() + from,
                                  static_cast<size_t>(area.columns) * 4),
                      0)
                << p.info.name;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
