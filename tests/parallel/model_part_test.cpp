#include "parallel/model_part.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

ModelConfig sparse_model() {
  ModelConfig model = families().back();
  model.layers = 4;
  return model;
}

// Every rank's part, by rank.
template <class F>
void each_part(const ModelConfig& model, const PartConfig& config, int ranks, const F& look) {
  run_ranks(ranks, [&](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    ModelPart part(model, config, world, device);
    look(part);
  });
}

TEST(ModelPart, HoldsItsStagesHeadsAndExperts) {
  PartConfig config;
  config.mesh.tp = 2, config.mesh.pp = 2, config.mesh.ep = 2;
  std::mutex mutex;
  std::map<int, std::map<std::string, Shape>> shapes;
  each_part(sparse_model(), config, 4, [&](ModelPart& part) {
    const std::lock_guard lock(mutex);
    for (const ParamInfo& p : part.parameters()) shapes[part.rank()][p.name] = p.shape;
    EXPECT_EQ(part.data_ranks(), 1);
    EXPECT_EQ(part.stages(), (std::vector<int>{part.place()[MeshAxis::pp]}));
    for (size_t i = 0; i < part.parameters().size(); ++i) {
      EXPECT_EQ(is_of_experts(part.parameters()[i]), i >= part.dense_parameters());
    }
    EXPECT_NE(part.experts(), nullptr);
    EXPECT_EQ(part.attention(), nullptr);
    EXPECT_EQ(part.statistics().size(), 2);
    EXPECT_EQ(part.embedding_sharing(), SharedBy::ends) << "the prediction module reads it too";
  });
  EXPECT_EQ(shapes[0].at("embedding.weight"), (Shape{25, 24}));
  EXPECT_FALSE(shapes[0].contains("head.weight"));
  EXPECT_TRUE(shapes[2].contains("head.weight"));
  EXPECT_TRUE(shapes[2].contains("embedding.weight"));
  EXPECT_EQ(shapes[0].at("layers.1.moe.experts.down.weight"), (Shape{4 * 24, 12}));
  EXPECT_EQ(shapes[0].at("layers.1.moe.shared.down.weight"), (Shape{24, 6}));
  EXPECT_FALSE(shapes[0].contains("layers.2.attention_norm.gain"));
}

// Slices of experts over the tensor ranks, and copies of them over data ranks.
TEST(ModelPart, HoldsSlicesOfExperts) {
  PartConfig config;
  config.mesh.tp = 2, config.mesh.ep = 2, config.mesh.etp = 2;
  std::mutex mutex;
  std::map<int, std::map<std::string, ParamInfo>> parts;
  each_part(sparse_model(), config, 8, [&](ModelPart& part) {
    const Replicas replicas = part.split_replicas(0, true);
    const std::lock_guard lock(mutex);
    for (const ParamInfo& p : part.parameters()) parts[part.rank()][p.name] = p;
    EXPECT_EQ(part.exchange()->group().ranks->size(), 2);
    EXPECT_EQ(part.exchange()->group().slices->size(), 2);
    EXPECT_EQ(part.exchange()->group().slices->rank(), part.rank() % 2);
    EXPECT_EQ(replicas.ranks(), 2);
    EXPECT_EQ(replicas.shard->rank(), part.rank() / 4);
  });
  for (int rank = 0; rank < 8; ++rank) {
    const ParamInfo& down = parts[rank].at("layers.1.moe.experts.down.weight");
    EXPECT_EQ(down.shape, (Shape{4 * 24, 6}));
    EXPECT_EQ(down.shard.first_column, rank % 2 * 6);
    EXPECT_EQ(down.shard.rows[0].global, rank / 2 % 2 * 4 * 24);
    EXPECT_EQ(parts[rank].at("layers.1.moe.experts.gate_up.weight").shape, (Shape{4 * 12, 24}));
  }
}

// Of what several ranks hold exactly one counts each element.
TEST(ModelPart, EveryElementIsCountedOnce) {
  for (const ModelConfig& family : families()) {
    ModelConfig model = family;
    model.layers = 4;
    for (const char* schedule : {"1f1b", "zb-v", "dualpipe"}) {
      PartConfig config;
      config.mesh.tp = 4, config.mesh.pp = 2;
      config.mesh.etp = model.moe.on() ? 2 : 1;
      config.schedule = schedule;
      std::mutex mutex;
      int64_t counted = 0;
      each_part(model, config, 8, [&](ModelPart& part) {
        // Both copies of a stage are replicas of one another, which share elements out.
        const int stage = part.stages().front();
        const Replicas dense = part.split_replicas(stage, false);
        const Replicas experts = part.split_replicas(stage, true);
        if (dense.shard->rank() > 0) return;
        const std::lock_guard lock(mutex);
        for (const ParamInfo& p : part.parameters()) {
          if (is_of_experts(p) && experts.shard->rank() > 0) continue;
          for (const FlatRange r : part.counted(p)) counted += r.elements();
        }
      });
      int64_t all = 0;
      for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
        all += p.shape.elements();
      }
      EXPECT_EQ(counted, all) << schedule;
    }
  }
}

TEST(ModelPart, RefusesAnotherNumberOfStages) {
  PartConfig config;
  config.mesh.pp = 2;
  config.blocks = {1, 2, 1};
  EXPECT_THROW(each_part(sparse_model(), config, 2, [](ModelPart&) {}), Error);
  config.blocks = {1, 3};
  each_part(sparse_model(), config, 2, [](ModelPart& part) {
    EXPECT_EQ(part.chunks()[1].last_block - part.chunks()[1].first_block, 3);
  });
}

TEST(ModelPart, CutsRowsForTheContextAxis) {
  PartConfig config;
  config.mesh.cp = 2;
  const ModelConfig model = small_model();
  each_part(model, config, 2, [&](ModelPart& part) {
    const MicroBatch own = part.cut(some_rows(model.vocabulary, 16));
    EXPECT_EQ(own.length, 8);
    EXPECT_EQ(own.sequences, 2);
    EXPECT_NE(part.attention(), nullptr);
  });
  config.context = ContextKind::all_to_all;
  each_part(model, config, 2, [&](ModelPart& part) { EXPECT_NE(part.attention(), nullptr); });
}

}  // namespace
}  // namespace shoestring
