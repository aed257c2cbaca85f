#include "parallel/gradient_traffic.h"

#include <gtest/gtest.h>

#include "parallel/model_stages.h"
#include "tests/core/model/transformer_fixture.h"
#include "tests/parallel/mesh_layout_lists.h"

namespace shoestring {
namespace {

TrafficForecast gradients_of(const StepFacts& facts) {
  const Mesh mesh(facts.part.mesh.resolved(facts.ranks), facts.ranks);
  const auto micros = static_cast<int>(facts.micro_batches / mesh.size(MeshGroup::dp));
  const Schedule schedule = schedule_of(facts.part, micros);
  TrafficForecast sum;
  add_gradient_traffic(facts, mesh, schedule,
                       cut(facts.model, even_split(facts.model, schedule.where.stages())), sum);
  return sum;
}

int64_t padded_elements(const ModelConfig& model) {
  int64_t sum = 0;
  for (const ParamInfo& p : parameters_of(model, whole_model(model))) {
    sum += (p.shape.elements() + ParamStore::alignment - 1) / ParamStore::alignment *
           ParamStore::alignment;
  }
  return sum;
}

StepFacts four_data_ranks() {
  StepFacts facts;
  facts.model = small_model();
  facts.ranks = 4;
  facts.dtype = Dtype::bf16;
  facts.micro_batches = 8;
  return facts;
}

// The formulas of parallel/traffic_forecast.h, of four data ranks together.
TEST(GradientTraffic, OfDataRanksByHand) {
  StepFacts facts = four_data_ranks();
  const int64_t n = padded_elements(facts.model);
  TrafficForecast f = gradients_of(facts);
  EXPECT_EQ(f.bytes(Call::Op::reduce_scatter), 3 * n * 4);
  EXPECT_EQ(f.bytes(Call::Op::all_gather), 3 * n * 4);
  facts.sharing.zero_stage = 1;
  f = gradients_of(facts);
  EXPECT_EQ(f.bytes(Call::Op::reduce_scatter), 3 * n * 4);
  EXPECT_EQ(f.bytes(Call::Op::all_gather), 3 * n * 2) << "bf16 parameters";
  facts.sharing.exact = true;
  f = gradients_of(facts);
  EXPECT_EQ(f.bytes(Call::Op::all_to_all), 2 * 3 * n * 4) << "two micro-batches a rank";
  EXPECT_EQ(f.bytes(Call::Op::reduce_scatter), 0);
}

TEST(GradientTraffic, OfTwoLevelsByHand) {
  StepFacts facts = four_data_ranks();
  facts.part.mesh.dp_replicate = 2;
  const int64_t n = padded_elements(facts.model);
  const TrafficForecast f = gradients_of(facts);
  EXPECT_EQ(f.bytes(Call::Op::reduce_scatter), 2 * n * 4) << "two pairs inside";
  EXPECT_EQ(f.bytes(Call::Op::all_reduce), 2 * n * 4) << "pieces of n elements in all across";
  EXPECT_EQ(f.bytes(Call::Op::all_gather), 2 * n * 4);
}

TEST(GradientTraffic, OfAnEmbeddingThatStagesShare) {
  StepFacts facts;
  facts.model = deep(small_model());
  facts.model.tied_embeddings = true;
  facts.ranks = 2;
  facts.part.mesh.pp = 2;
  facts.micro_batches = 8;
  const int64_t elements = facts.model.vocabulary * facts.model.hidden;
  EXPECT_EQ(gradients_of(facts).bytes(Call::Op::all_reduce), 2 * elements * 4);
  facts.sharing.exact = true;
  EXPECT_EQ(gradients_of(facts).bytes(Call::Op::all_reduce), 8 * 2 * elements * 4);
  facts.part.schedule = "dualpipe";
  EXPECT_EQ(gradients_of(facts).bytes(Call::Op::reduce_scatter), 4 * 2 * elements * 4);
}

TEST(GradientTraffic, CopiesOfStages) {
  const Placement both = schedule_of(layout("", 4, mesh(1, 1, 4), "dualpipe").part, 8).where;
  EXPECT_EQ(copies_of(both, 1), 2);
  EXPECT_TRUE(is_first_copy(both, 1));
  EXPECT_FALSE(is_first_copy(both, 2));
  const Placement one = schedule_of(layout("", 4, mesh(1, 1, 4)).part, 8).where;
  EXPECT_EQ(copies_of(one, 3), 1);
  EXPECT_TRUE(is_first_copy(one, 3));
}

}  // namespace
}  // namespace shoestring
