#include "parallel/mesh_config.h"

#include <gtest/gtest.h>

#include <set>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

std::string complaints_of(const MeshConfig& config) {
  Complaints c;
  config.validate(c);
  std::string text;
  for (const auto& item : c.items()) append(text, item.key, " ", item.message, "\n");
  return text;
}

std::string against(const MeshConfig& config, int64_t ranks) {
  Complaints c;
  const bool holds = config.makes(ranks, &c);
  EXPECT_EQ(holds, c.items().empty());
  EXPECT_EQ(holds, config.makes(ranks, nullptr));
  std::string text;
  for (const auto& item : c.items()) append(text, item.key, " ", item.message, "\n");
  return text;
}

std::string order_of(std::string_view text) {
  const ParsedOrder parsed = parse_order(text);
  if (!parsed.error.empty()) return parsed.error;
  std::string order;
  for (MeshAxis axis : parsed.order) append(order, order.empty() ? "" : " ", name_of(axis));
  return order;
}

TEST(MeshConfig, OneRankIsTheDefault) {
  const MeshConfig config;
  EXPECT_EQ(config.named_ranks(), 1);
  EXPECT_EQ(complaints_of(config), "");
  EXPECT_EQ(against(config, 1), "");
  EXPECT_EQ(order_of(config.order), order_of(""));
}

TEST(MeshConfig, EveryFieldIsExplained) {
  struct Reader {
    std::set<std::string> keys;
    void operator()(std::string_view key, int64_t&, const Field& field) {
      EXPECT_GE(field.min, 0) << key;
      EXPECT_LE(field.max, 1 << 20) << key;
      note(key, field);
    }
    void operator()(std::string_view key, std::string&, const Field& field) { note(key, field); }
    void note(std::string_view key, const Field& field) {
      EXPECT_FALSE(field.help.empty()) << key;
      EXPECT_TRUE(keys.emplace(key).second) << key;
    }
  } reader;
  MeshConfig config;
  config.visit(reader);
  EXPECT_EQ(reader.keys, (std::set<std::string>{"tp", "cp", "pp", "dp_shard", "dp_replicate", "ep",
                                                "etp", "order", "ranks_per_node"}));
}

TEST(MeshConfig, AnOrderMayLeaveOutItsEnd) {
  EXPECT_EQ(order_of(""), "tp cp dp_shard dp_replicate pp");
  EXPECT_EQ(order_of("pp"), "pp tp cp dp_shard dp_replicate");
  EXPECT_EQ(order_of("dp_shard-tp"), "dp_shard tp cp dp_replicate pp");
  EXPECT_EQ(order_of("pp-dp_replicate-dp_shard-cp-tp"), "pp dp_replicate dp_shard cp tp");
}

TEST(MeshConfig, AWrongOrderIsExplained) {
  EXPECT_EQ(order_of("tp-pp-tp"), "names tp twice");
  EXPECT_EQ(order_of("tp-dp_shrad"),
            "names \"dp_shrad\", which is no axis (dp_shard?); the axes are tp, cp, dp_shard, "
            "dp_replicate and pp, joined by \"-\"");
  EXPECT_EQ(order_of("tp--pp"),
            "names \"\", which is no axis; the axes are tp, cp, dp_shard, dp_replicate and pp, "
            "joined by \"-\"");
  EXPECT_EQ(order_of("ep-tp"),
            "names ep, which has no place of its own: experts are spread over neighbours within "
            "the tensor, context and data ranks");
  EXPECT_EQ(complaints_of({.order = "pp-pp"}), "order names pp twice\n");
}

TEST(MeshConfig, SizesThatAreNoneAreAllNamed) {
  EXPECT_EQ(complaints_of({.tp = 0, .dp_shard = -1, .ep = -2, .ranks_per_node = -8}),
            "tp = 0 must be at least 1\ndp_shard = -1 must be at least 0\n"
            "ep = -2 must be at least 1\nranks_per_node = -8 must be at least 0\n");
  EXPECT_EQ(against({.tp = 0}, 4), "tp = 0 must be at least 1\n");
}

TEST(MeshConfig, WhatIsLeftGoesToTheShards) {
  const MeshConfig config = {.tp = 2, .pp = 3, .dp_replicate = 2};
  EXPECT_EQ(config.named_ranks(), 12);
  EXPECT_EQ(config.resolved(12).dp_shard, 1);
  const MeshConfig filled = config.resolved(48);
  EXPECT_EQ(filled.dp_shard, 4);
  EXPECT_EQ(filled.dp(), 8);
  EXPECT_EQ(filled.stage_ranks(), 16);
  EXPECT_EQ(filled.named_ranks(), 48);
  EXPECT_EQ(config.resolved(20), config);
  EXPECT_EQ(against(config, 48), "");
}

TEST(MeshConfig, EveryReasonAgainstACountOfRanksIsNamed) {
  EXPECT_EQ(against({.tp = 2, .pp = 3}, 16),
            "dp_shard = 0 takes what the other axes leave, but tp 2 x cp 1 x dp_replicate 1 x pp 3 "
            "= 6 does not divide the 16 ranks\n");
  EXPECT_EQ(against({.tp = 2, .dp_shard = 3, .ep = 4, .order = "x", .ranks_per_node = 3}, 8),
            "order names \"x\", which is no axis; the axes are tp, cp, dp_shard, dp_replicate and "
            "pp, joined by \"-\"\n"
            "dp_shard does not fit: tp 2 x cp 1 x dp_shard 3 x dp_replicate 1 x pp 1 = 6, but "
            "there are 8 ranks\n"
            "ep x etp = 4 does not divide the 6 ranks of a pipeline stage (tp x cp x dp_shard x "
            "dp_replicate)\n"
            "ranks_per_node = 3 does not divide the 8 ranks\n");
  EXPECT_EQ(against({.ep = 2, .etp = 3}, 8),
            "ep x etp = 6 does not divide the 8 ranks of a pipeline stage (tp x cp x dp_shard x "
            "dp_replicate)\n");
  // A machine with room for more ranks than there are.
  EXPECT_EQ(against({.ranks_per_node = 8}, 3), "");
}

TEST(MeshConfig, HugeSizesDoNotOverflow) {
  const int64_t most = 1 << 20;
  const MeshConfig config = {.tp = most,
                             .cp = most,
                             .pp = most,
                             .dp_shard = most,
                             .dp_replicate = most,
                             .ep = most,
                             .etp = most};
  EXPECT_GE(config.named_ranks(), most);
  EXPECT_NE(against(config, 4), "");
  const int64_t billions = 4000000000;
  const MeshConfig absurd = {.tp = billions, .cp = billions, .pp = billions, .ep = billions};
  EXPECT_GT(absurd.named_ranks(), 1 << 16);
  EXPECT_EQ(complaints_of(absurd),
            "tp = 4000000000: tp x cp x dp_shard x dp_replicate x pp asks for more than the 65536 "
            "ranks that a run may have\n"
            "ep = 4000000000 is more than the 65536 ranks that a run may have\n");
  EXPECT_NE(against(absurd, 4), "");
}

TEST(MeshConfig, NoRunHasMoreThan65536Ranks) {
  EXPECT_EQ(complaints_of({.tp = 256, .pp = 256}), "");
  EXPECT_EQ(complaints_of({.tp = 256, .pp = 257}),
            "pp = 257: tp x cp x dp_shard x dp_replicate x pp asks for 65792 ranks, more than the "
            "65536 ranks that a run may have\n");
}

}  // namespace
}  // namespace shoestring
