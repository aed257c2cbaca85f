// Every axis alone at 2, 3, 4 and 8 ranks, with every family, and every schedule at those sizes
// where it is defined.

#include "tests/conformance/step_case.h"

namespace shoestring {
namespace {

const std::vector<std::string> families_of_steps = {"llama", "qwen3", "mixtral", "deepseek-v3"};
const std::vector<int64_t> axis_sizes = {2, 3, 4, 8};

// Heads, widths, experts and rows that 2, 3, 4 and 8 ranks divide; key heads that some ranks share.
MeshCase wide_case(const std::string& family, int64_t n) {
  MeshCase c;
  c.model = step_model(family);
  c.model.layers = 2;
  c.model.heads = 24;
  c.model.kv_heads = n % 3 == 0 ? 3 : 2;
  if (!c.model.mla.on()) c.model.head_dim = 4;
  c.model.ffn = 48;
  if (c.model.moe.on()) c.model.moe.experts = 24, c.model.moe.ffn = 24;
  c.length = 48;
  c.micros = 8;
  c.ranks = static_cast<int>(n);
  c.part.mesh.dp_shard = 1;
  return c;
}

class AxisSizes : public testing::TestWithParam<std::string> {
 protected:
  void expect_parity_of(MeshCase c, const std::string& what) {
    SCOPED_TRACE(cat(what, " ", c.ranks));
    ASSERT_TRUE(is_legal(question_of(c)));
    expect_step_parity(c, alone_);
    ++cases_;
  }
  OneRank alone_;
  int cases_ = 0;
};

TEST_P(AxisSizes, Tensor) {
  for (const int64_t n : axis_sizes) {
    for (const int64_t zero : {0, 1, 2, 3}) {
      MeshCase c = wide_case(GetParam(), n);
      c.part.mesh.tp = n;
      c.zero_stage = zero;  // experts have a copy on each
      expect_parity_of(c, "tp");
    }
  }
}

TEST_P(AxisSizes, Context) {
  for (const int64_t n : axis_sizes) {
    for (const ContextKind kind : {ContextKind::ring, ContextKind::all_to_all}) {
      MeshCase c = wide_case(GetParam(), n);
      c.part.mesh.cp = n;
      c.part.context = kind;
      expect_parity_of(c, kind == ContextKind::ring ? "ring" : "all-to-all");
    }
  }
}

// One of the copies of the experts alone, and two.
class SparseAxisSizes : public AxisSizes {};
TEST_P(SparseAxisSizes, Experts) {
  for (const int64_t n : axis_sizes) {
    for (const bool exact : {false, true}) {
      MeshCase c = wide_case(GetParam(), n);
      c.part.mesh.ep = c.part.mesh.dp_shard = n;
      c.micros = 24;
      c.exact = exact;
      expect_parity_of(c, "ep");
    }
  }
}

TEST_P(AxisSizes, Data) {
  for (const int64_t n : axis_sizes) {
    for (const bool copies : {false, true}) {
      for (const int64_t zero : {0, 1, 2, 3}) {
        MeshCase c = wide_case(GetParam(), n);
        (copies ? c.part.mesh.dp_replicate : c.part.mesh.dp_shard) = n;
        c.zero_stage = zero;
        if (zero == 3) c.micros -= static_cast<int>(c.micros % n);  // as many for every rank
        c.exact = copies == (zero % 2 == 0);
        expect_parity_of(c, copies ? "copies" : "dp");
      }
    }
  }
}

// As many stages as ranks have pieces, and a block more: the least count of micro-batches.
TEST_P(AxisSizes, Pipeline) {
  for (const ScheduleEntry& entry : schedule_entries()) {
    for (const int64_t n : axis_sizes) {
      MeshCase c = wide_case(GetParam(), n);
      c.part.mesh.pp = n;
      c.part.schedule = entry.name;
      c.length = 16;
      c.micros = static_cast<int>(2 * n);
      c.exact = n % 2 == 0;
      const Placement where =
          placement_of({.name = entry.name, .ranks = static_cast<int>(n), .micros = c.micros});
      c.model.layers = where.stages() + 1;
      if (entry.name == "dualpipe" && n % 2 == 1) {
        EXPECT_FALSE(is_legal(question_of(c))) << entry.name << n;
        continue;
      }
      expect_parity_of(c, entry.name);
    }
  }
  EXPECT_EQ(cases_, static_cast<int>(4 * schedule_entries().size()) - 1);
}

constexpr auto name_of_family = [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
};
INSTANTIATE_TEST_SUITE_P(Families, AxisSizes, testing::ValuesIn(families_of_steps), name_of_family);
INSTANTIATE_TEST_SUITE_P(Families, SparseAxisSizes, testing::Values("mixtral", "deepseek-v3"),
                         name_of_family);

}  // namespace
}  // namespace shoestring
