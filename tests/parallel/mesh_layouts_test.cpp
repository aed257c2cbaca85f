#include "parallel/mesh_layouts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/check.h"
#include "core/text.h"
#include "parallel/mesh.h"

namespace shoestring {
namespace {

// A model that fits everywhere, for tests of one rule at a time.
ModelFacts easy() {
  return {.layers = 1 << 10,
          .heads = 1 << 10,
          .kv_heads = 1 << 10,
          .sequence = 1 << 20,
          .micro_batches = 1 << 20};
}
ModelFacts easy_experts() {
  ModelFacts model = easy();
  model.experts = model.expert_ffn = 1 << 10;
  return model;
}
const ScheduleNeeds dualpipe = {
    .name = "dualpipe", .min_per_rank = 2, .multiple = 2, .even_ranks = true};
const ScheduleNeeds interleaved = {
    .name = "interleaved", .stages_per_rank = 2, .multiple_per_rank = 1};

LayoutQuestion ask(const MeshConfig& config, int64_t ranks, const ModelFacts& model,
                   const std::string& section = "mesh") {
  LayoutQuestion question;
  question.config = config, question.ranks = ranks;
  question.model = model, question.section = section;
  return question;
}

// "key message" lines without the advice at the end.
std::string reasons(const LayoutQuestion& question) {
  const std::vector<LayoutComplaint> found = check_layout(question);
  EXPECT_EQ(is_legal(question), found.empty());
  std::string text;
  for (const LayoutComplaint& c : found) {
    if (!c.key.empty()) append(text, text.empty() ? "" : "\n", c.key, " ", c.message);
  }
  EXPECT_TRUE(found.empty() || found.back().key.empty());
  return text;
}

std::string advice_of(const LayoutQuestion& question) {
  const std::vector<LayoutComplaint> found = check_layout(question);
  return found.empty() ? "" : found.back().message;
}

std::string unplaced(std::string text, const std::vector<std::string>&) { return text; }

TEST(MeshLayouts, Heads) {
  ModelFacts model = easy();
  model.heads = 12;
  model.kv_heads = 6;
  EXPECT_EQ(reasons(ask({.tp = 3}, 3, model)),
            "tp = 3 does not divide the 1048576 tokens of a sequence");
  model.sequence = 5040;
  EXPECT_EQ(reasons(ask({.tp = 3}, 3, model)), "");
  EXPECT_EQ(reasons(ask({.tp = 12}, 12, model)), "");
  EXPECT_EQ(reasons(ask({.tp = 4}, 4, model)),
            "tp = 4 neither divides the 6 key-value heads nor is a multiple of them");
  EXPECT_EQ(reasons(ask({.tp = 5}, 5, model)),
            "tp = 5 does not divide the 12 query heads\n"
            "tp = 5 neither divides the 6 key-value heads nor is a multiple of them");
  model.kv_heads = 0;  // latent attention
  EXPECT_EQ(reasons(ask({.tp = 4}, 4, model)), "");
}

TEST(MeshLayouts, Widths) {
  ModelFacts model = easy();
  model.ffn = 702;
  model.shared_ffn = 130;
  model.vocabulary = 2;
  EXPECT_EQ(reasons(ask({.tp = 2}, 2, model)), "");
  EXPECT_EQ(reasons(ask({.tp = 4}, 4, model)),
            "tp = 4 does not divide the 702 columns of the mlp\n"
            "tp = 4 does not divide the 130 columns of the shared experts\n"
            "tp = 4 is more than the 2 rows of the vocabulary");
}

TEST(MeshLayouts, Sequences) {
  ModelFacts model = easy();
  model.sequence = 24;
  EXPECT_EQ(reasons(ask({.cp = 4}, 4, model)), "");
  EXPECT_EQ(reasons(ask({.tp = 2, .cp = 2}, 4, model)), "");
  EXPECT_EQ(reasons(ask({.tp = 4, .cp = 2}, 8, model)),
            "cp = 2 cuts sequences into 2 x cp x tp = 16 pieces, which 24 tokens do not divide "
            "into");
  EXPECT_EQ(reasons(ask({.cp = 8}, 8, model)),
            "cp = 8 cuts sequences into 2 x cp = 16 pieces, which 24 tokens do not divide into");
  model.context = ContextKind::all_to_all;
  EXPECT_EQ(reasons(ask({.tp = 4, .cp = 2}, 8, model)), "");
  EXPECT_EQ(reasons(ask({.cp = 8}, 8, model)), "");
  EXPECT_EQ(reasons(ask({.cp = 16}, 16, model)),
            "cp = 16 cuts sequences into cp = 16 pieces, which 24 tokens do not divide into");
}

TEST(MeshLayouts, AllToAllSharesOutHeads) {
  ModelFacts model = easy();
  model.heads = 24;
  model.kv_heads = 6;
  model.context = ContextKind::all_to_all;
  model.sequence = 7 * 5040;
  EXPECT_EQ(reasons(ask({.cp = 3}, 3, model)), "");
  EXPECT_EQ(reasons(ask({.cp = 12}, 12, model)), "");
  EXPECT_EQ(reasons(ask({.tp = 2, .cp = 3}, 6, model)), "");
  EXPECT_EQ(reasons(ask({.cp = 4}, 4, model)),
            "cp = 4 neither divides the 6 key-value heads of a tensor rank nor is a multiple of "
            "them");
  EXPECT_EQ(reasons(ask({.tp = 3, .cp = 5}, 15, model)),
            "cp x tp = 15 does not divide the 24 query heads, which all-to-all context "
            "parallelism shares out\n"
            "cp = 5 neither divides the 2 key-value heads of a tensor rank nor is a multiple of "
            "them");
  model.context = ContextKind::ring;
  EXPECT_EQ(reasons(ask({.cp = 5}, 5, model)), "");
  model.kv_heads = 0;
  model.context = ContextKind::all_to_all;
  EXPECT_EQ(reasons(ask({.cp = 4}, 4, model)), "");
}

TEST(MeshLayouts, Experts) {
  ModelFacts model = easy_experts();
  model.experts = 12;
  model.expert_ffn = 10;
  EXPECT_EQ(reasons(ask({.ep = 4, .etp = 2}, 8, model)), "");
  EXPECT_EQ(reasons(ask({.ep = 8}, 8, model)), "ep = 8 does not divide the 12 experts");
  EXPECT_EQ(reasons(ask({.ep = 2, .etp = 4}, 8, model)),
            "etp = 4 does not divide the 10 columns of an expert");
  EXPECT_EQ(reasons(ask({.pp = 2, .ep = 4, .etp = 2}, 8, model)),
            "ep x etp = 8 does not divide the 4 ranks of a pipeline stage (tp x cp x dp_shard x "
            "dp_replicate)");
  EXPECT_EQ(reasons(ask({.ep = 2, .etp = 2}, 4, easy())),
            "ep = 2, but the model has no experts\netp = 2, but the model has no experts");
}

TEST(MeshLayouts, Pipelines) {
  ModelFacts model = easy();
  model.layers = 6;
  EXPECT_EQ(reasons(ask({.pp = 6}, 6, model)), "");
  EXPECT_EQ(reasons(ask({.pp = 8}, 8, model)),
            "pp = 8 with 1f1b cuts the model into 8 stages, but it has layers for 6");
  model.schedule = interleaved;
  EXPECT_EQ(reasons(ask({.pp = 4}, 4, model)),
            "pp = 4 with interleaved cuts the model into 8 stages, but it has layers for 6");
  model.schedule = dualpipe;
  EXPECT_EQ(reasons(ask({.pp = 4}, 4, model)), "");
  EXPECT_EQ(reasons(ask({.pp = 3}, 3, model)), "pp = 3 must be even for dualpipe");
  EXPECT_EQ(reasons(ask({}, 1, model)), "") << "one rank needs no schedule";
}

TEST(MeshLayouts, MicroBatches) {
  ModelFacts model = easy();
  model.micro_batches = 20;
  EXPECT_EQ(reasons(ask({.dp_shard = 8}, 8, model)), "") << "the last ones are some ranks' only";
  model.equal_batches = true;
  EXPECT_EQ(reasons(ask({.dp_shard = 4, .dp_replicate = 2}, 8, model)),
            "dp_shard x dp_replicate = 8 does not divide the 20 micro-batches of a step, of which "
            "every data rank must take as many");
  model.equal_batches = false;
  EXPECT_EQ(reasons(ask({.pp = 2}, 16, model)),
            "dp_shard x dp_replicate = 8 does not divide the 20 micro-batches of a step, of which "
            "every data rank must take as many");
  model.schedule = dualpipe;
  EXPECT_EQ(reasons(ask({.pp = 4}, 8, model)), "");
  EXPECT_EQ(reasons(ask({.pp = 4}, 16, model)),
            "pp = 4 with dualpipe needs at least 8 micro-batches on each data rank, but there are "
            "5 (20 in a step, 4 data ranks)\n"
            "pp = 4 with dualpipe needs a multiple of 2 micro-batches on each data rank, but there "
            "are 5 (20 in a step, 4 data ranks)");
  model.schedule = interleaved;
  EXPECT_EQ(reasons(ask({.pp = 5}, 5, model)), "");
  EXPECT_EQ(reasons(ask({.pp = 3}, 3, model)),
            "pp = 3 with interleaved needs a multiple of 3 micro-batches on each data rank, but "
            "there are 20 (20 in a step, 1 data rank)");
}

TEST(MeshLayouts, ExpertsOnNodes) {
  ModelFacts model = easy_experts();
  model.groups = 4;
  model.micro_batches = 48;
  model.two_level_exchange = true;
  EXPECT_EQ(reasons(ask({.ep = 8, .ranks_per_node = 2}, 16, model)), "");
  EXPECT_EQ(reasons(ask({.ep = 8, .ranks_per_node = 1}, 16, model)),
            "ep = 8 spans 8 nodes, which do not divide the 4 groups of experts that the two-level "
            "exchange keeps together");
  EXPECT_EQ(reasons(ask({.dp_shard = 12, .ep = 4, .ranks_per_node = 3}, 12, model)),
            "ep = 4 ranks are not spread evenly over nodes of 3, which the two-level exchange "
            "needs");
  model.two_level_exchange = false;
  EXPECT_EQ(reasons(ask({.dp_shard = 12, .ep = 4, .ranks_per_node = 3}, 12, model)), "");
}

// Llama-like: 6 layers, 12 heads on 4 key-value heads.
ModelFacts small_model() {
  return {.layers = 6,
          .heads = 12,
          .kv_heads = 4,
          .ffn = 704,
          .vocabulary = 512,
          .sequence = 256,
          .micro_batches = 16};
}

TEST(MeshLayouts, AllReasonsAtOnceAndTheNearestLegalOnes) {
  const LayoutQuestion question = {
      {.tp = 3, .cp = 3, .pp = 8, .dp_shard = 1, .ep = 2, .order = "tp-tp"}, 16, small_model()};
  try {
    require_layout(question, unplaced);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_STREQ(
        error.what(),
        "this layout is not possible:\n"
        "mesh.order names tp twice\n"
        "mesh.dp_shard does not fit: tp 3 x cp 3 x dp_shard 1 x dp_replicate 1 x pp 8 = 72, but "
        "there are 16 ranks\n"
        "mesh.ep x etp = 2 does not divide the 9 ranks of a pipeline stage (tp x cp x dp_shard x "
        "dp_replicate)\n"
        "mesh.tp = 3 neither divides the 4 key-value heads nor is a multiple of them\n"
        "mesh.tp = 3 does not divide the 704 columns of the mlp\n"
        "mesh.cp = 3 cuts sequences into 2 x cp x tp = 18 pieces, which 256 tokens do not divide "
        "into\n"
        "mesh.ep = 2, but the model has no experts\n"
        "mesh.pp = 8 with 1f1b cuts the model into 8 stages, but it has layers for 6\n"
        "the nearest legal layouts of 16 ranks:\n"
        "  --set mesh.tp=2 --set mesh.cp=2 --set mesh.pp=4 --set mesh.ep=1 "
        "--set mesh.order=tp-cp-dp_shard-dp_replicate-pp\n"
        "  --set mesh.tp=2 --set mesh.cp=4 --set mesh.pp=2 --set mesh.ep=1 "
        "--set mesh.order=tp-cp-dp_shard-dp_replicate-pp\n"
        "  --set mesh.tp=4 --set mesh.cp=2 --set mesh.pp=2 --set mesh.ep=1 "
        "--set mesh.order=tp-cp-dp_shard-dp_replicate-pp");
  }
  require_layout(ask({.tp = 4, .cp = 2, .pp = 2}, 16, small_model()), unplaced);
}

TEST(MeshLayouts, WhatIsLeftStaysWhatIsLeft) {
  EXPECT_EQ(advice_of(ask({.tp = 8}, 16, small_model(), "net")),
            "the nearest legal layouts of 16 ranks:\n"
            "  --set net.tp=4\n"
            "  --set net.tp=2\n"
            "  --set net.tp=4 --set net.dp_replicate=2");
  EXPECT_EQ(advice_of(ask({.ranks_per_node = 3}, 16, small_model())),
            "the nearest legal layouts of 16 ranks:\n"
            "  --set mesh.ranks_per_node=0\n"
            "  --set mesh.dp_replicate=2 --set mesh.ranks_per_node=0\n"
            "  --set mesh.cp=2 --set mesh.ranks_per_node=0");
}

TEST(MeshLayouts, OptionsTurnOneConfigIntoTheOther) {
  const MeshConfig from = {.tp = 2, .dp_shard = 3};
  EXPECT_EQ(options_text(from, from), "");
  EXPECT_EQ(options_text(from, {.tp = 4,
                                .cp = 2,
                                .pp = 3,
                                .dp_shard = 5,
                                .dp_replicate = 6,
                                .ep = 7,
                                .etp = 8,
                                .order = "pp",
                                .ranks_per_node = 9}),
            "--set mesh.tp=4 --set mesh.cp=2 --set mesh.pp=3 --set mesh.dp_shard=5 "
            "--set mesh.dp_replicate=6 --set mesh.ep=7 --set mesh.etp=8 --set mesh.order=pp "
            "--set mesh.ranks_per_node=9");
}

// Ordered factorisations: 2^3 into five axes in C(7, 4) ways, each with ep and etp.
TEST(MeshLayouts, AllLayoutsAreListedOnce) {
  EXPECT_EQ(legal_layouts(ask({}, 8, easy())).size(), 35u);
  EXPECT_EQ(legal_layouts(ask({}, 64, easy())).size(), 210u);
  // Of stages with 2^k ranks there are C(k + 3, 3), with C(k + 2, 2) pairs of ep and etp each.
  EXPECT_EQ(legal_layouts(ask({}, 8, easy_experts())).size(), 1u + 4 * 3 + 10 * 6 + 20 * 10);
  std::vector<MeshConfig> layouts =
      legal_layouts(ask({.order = "pp", .ranks_per_node = 4}, 8, easy()));
  for (const MeshConfig& layout : layouts) {
    EXPECT_EQ(layout.named_ranks(), 8);
    EXPECT_EQ(layout.order, "pp");
    EXPECT_EQ(layout.ranks_per_node, 4);
    EXPECT_EQ(std::count(layouts.begin(), layouts.end(), layout), 1);
  }
}

ModelFacts random_facts(std::mt19937_64& random) {
  const auto one_of = [&](std::vector<int64_t> from) { return from[random() % from.size()]; };
  ModelFacts model;
  model.layers = one_of({1, 2, 3, 4, 6, 8, 13});
  model.kv_heads = one_of({0, 1, 2, 3, 4, 8});
  model.heads = std::max<int64_t>(model.kv_heads, 1) * one_of({1, 2, 4});
  model.ffn = one_of({0, 48, 64, 100});
  model.experts = one_of({0, 0, 4, 6, 16});
  model.expert_ffn = model.experts == 0 ? 0 : one_of({16, 24, 30});
  model.sequence = one_of({16, 24, 64, 96});
  model.micro_batches = one_of({1, 2, 6, 8, 12, 32});
  model.context = random() % 2 == 0 ? ContextKind::ring : ContextKind::all_to_all;
  model.equal_batches = random() % 2 == 0;
  if (random() % 2 == 0) model.schedule = random() % 2 == 0 ? dualpipe : interleaved;
  return model;
}

double log_distance(const MeshConfig& a, const MeshConfig& b) {
  const auto axis = [](int64_t x, int64_t y) {
    return std::abs(std::log2(static_cast<double>(x) / static_cast<double>(y)));
  };
  return axis(a.tp, b.tp) + axis(a.cp, b.cp) + axis(a.pp, b.pp) + axis(a.ep, b.ep) +
         axis(a.etp, b.etp) + axis(a.dp_replicate, b.dp_replicate) +
         (a.dp_shard == 0 ? 0 : axis(a.dp_shard, b.dp_shard));
}

// Over random models and questions: listed layouts are legal and can be laid out, every config that
// is legal is listed, and what is offered is legal and as near as anything.
TEST(MeshLayouts, TheNearestAreLegalAndNothingIsNearer) {
  std::mt19937_64 random(1);
  int refused = 0;
  for (int i = 0; i < 150; ++i) {
    const auto ranks = static_cast<int64_t>(1 + random() % 24);
    const auto size = [&] { return static_cast<int64_t>(1 + random() % 4); };
    MeshConfig config;
    for (int64_t* axis : {&config.tp, &config.cp, &config.pp}) *axis = size();
    LayoutQuestion question = ask(config, ranks, random_facts(random));
    question.config.dp_shard = static_cast<int64_t>(random() % 3);
    if (random() % 3 == 0) question.config.ep = size();
    std::vector<MeshConfig> layouts = legal_layouts(question);
    for (const MeshConfig& layout : layouts) {
      ASSERT_TRUE(is_legal(ask(layout, ranks, question.model)));
      ASSERT_NO_THROW(Mesh(layout, static_cast<int>(ranks)));
    }
    const bool legal = is_legal(question);
    const MeshConfig filled = question.config.resolved(ranks);
    ASSERT_EQ(std::count(layouts.begin(), layouts.end(), filled), legal ? 1 : 0);
    refused += legal ? 0 : 1;
    // Slices of experts are not offered unasked, idle data ranks never.
    const int64_t busy = question.model.micro_batches;
    std::erase_if(layouts, [&](const MeshConfig& m) { return m.dp() > busy; });
    std::erase_if(layouts, [](const MeshConfig& m) { return m.etp > 1; });
    const std::vector<MeshConfig> nearest = nearest_layouts(question);
    ASSERT_EQ(nearest.size(), std::min<size_t>(3, layouts.size()));
    double last = 0;
    for (const MeshConfig& layout : nearest) {
      ASSERT_EQ(std::count(layouts.begin(), layouts.end(), layout), 1);
      const double distance = log_distance(question.config, layout);
      ASSERT_GE(distance, last - 1e-9);
      last = distance;
    }
    for (const MeshConfig& layout : layouts) {
      if (std::count(nearest.begin(), nearest.end(), layout) > 0) continue;
      ASSERT_GE(log_distance(question.config, layout), last - 1e-9);
    }
    if (legal && filled.dp() <= busy) {
      ASSERT_EQ(nearest.front(), filled);
    }
  }
  EXPECT_GT(refused, 30);
}

TEST(MeshLayouts, ThousandsOfRanksAreSearched) {
  // DeepSeek-V3's layout is legal for its sizes, and a wrong one is answered.
  ModelFacts model = {.layers = 61,
                      .heads = 128,
                      .kv_heads = 0,
                      .ffn = 18432,
                      .shared_ffn = 2048,
                      .experts = 256,
                      .expert_ffn = 2048,
                      .groups = 8,
                      .vocabulary = 129280,
                      .sequence = 4096,
                      .micro_batches = 15360,
                      .two_level_exchange = true,
                      .schedule = dualpipe};
  EXPECT_EQ(reasons(ask({.pp = 16, .ep = 64, .ranks_per_node = 8}, 2048, model)), "");
  EXPECT_EQ(advice_of(ask({.pp = 15, .ep = 64}, 2048, model)),
            "the nearest legal layouts of 2048 ranks:\n"
            "  --set mesh.pp=16\n"
            "  --set mesh.pp=8\n"
            "  --set mesh.pp=16 --set mesh.ep=32");
}

}  // namespace
}  // namespace shoestring
