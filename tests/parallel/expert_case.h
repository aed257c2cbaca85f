#pragma once
// What the tests of expert parallelism share: tensors that any rank can make, groups with and
// without nodes, and small comparisons.

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/ops/convert.h"
#include "core/ops/drop_choices.h"
#include "core/random.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/expert_plan.h"

namespace shoestring::testing {

inline Tensor normal_tensor(Device& device, const Shape& shape, Dtype dtype,
                            const std::string& name) {
  Tensor wide(device, shape, Dtype::f64);
  const RandomStream random(7, name);
  for (int64_t i = 0; i < wide.elements(); ++i) {
    wide.data<double>()[i] = random.normal(static_cast<uint64_t>(i));
  }
  Stream stream = Stream::immediate(device);
  return convert(stream, wide, dtype);
}

// From several threads, so by exceptions.
inline void check_same_bits(const Tensor& got, const Tensor& want, const std::string& what) {
  check(got.text() == want.text(), cat(what, " is ", got.text(), ", not ", want.text()));
  check(std::memcmp(got.raw(), want.raw(), got.bytes()) == 0, cat(what, " has other bits"));
}

// How the experts' ranks stand together.
struct Standing {
  int ranks = 2;
  int nodes = 0;  // 0: one level
  int64_t fixed_rows = 0;
  bool sum_in_nodes = false;
  int slices = 1;  // of each expert: there are ranks * slices of them, slices neighbours
  int all() const { return ranks * slices; }
  std::string text() const {
    return cat(ranks, " ranks, ", slices, " slices, ", nodes, " nodes, ", fixed_rows, " fixed rows",
               sum_in_nodes ? ", sums in nodes" : "");
  }
};

// One rank's communicators.
class GroupOf {
 public:
  GroupOf(Communicator& world, const Standing& s, int64_t experts) {
    group = {.experts = experts,
             .ranks = &world,
             .fixed_rows = s.fixed_rows,
             .sum_in_nodes = s.sum_in_nodes};
    if (s.slices > 1) {
      ranks_ = world.split(world.rank() % s.slices, world.rank());
      slices_ = world.split(world.rank() / s.slices, world.rank());
      group.ranks = ranks_.get();
      group.slices = slices_.get();
    }
    if (s.nodes == 0) return;
    Communicator& ranks = *group.ranks;
    const int local = ranks.size() / s.nodes;
    across_ = ranks.split(ranks.rank() % local, ranks.rank());
    inside_ = ranks.split(ranks.rank() / local, ranks.rank());
    group.across = across_.get();
    group.inside = inside_.get();
  }
  ExpertGroup group;

 private:
  std::unique_ptr<Communicator> ranks_, slices_, across_, inside_;
};

// What each rank's tokens choose.
enum class Load { random, one_expert, last_rank, own_rank, nothing_at_home };

struct Choice {
  Tensor ids, gates;  // [T, K]
};

// K different experts a token; rank r's tokens are a function of r alone.
inline Choice choices_of(Device& device, Load load, int rank, const std::vector<int64_t>& sizes,
                         Dtype dtype = Dtype::f32) {
  const int64_t tokens = sizes[0], chosen = sizes[1], experts = sizes[2], ranks = sizes[3];
  const RandomStream random(11, cat("choices ", rank));
  Choice c{.ids = Tensor(device, {tokens, chosen}, Dtype::i32), .gates = {}};
  const int64_t here = experts / ranks;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < chosen; ++k) {
      const auto draw = static_cast<int64_t>(
          random.below(static_cast<uint64_t>(t * chosen + k), static_cast<uint64_t>(experts)));
      int64_t e = draw;
      if (load == Load::one_expert) e = k;
      if (load == Load::last_rank) e = experts - here + draw % here;
      if (load == Load::own_rank) e = rank % ranks * here + draw % here;
      if (load == Load::nothing_at_home) e = (rank + 1) % ranks * here + draw % here;
      int32_t* row = c.ids.data<int32_t>() + t * chosen;
      while (std::find(row, row + k, e) != row + k) e = (e + 1) % experts;
      row[k] = static_cast<int32_t>(e);
    }
  }
  c.gates = normal_tensor(device, {tokens, chosen}, dtype, cat("gates ", rank));
  return c;
}

// A plan with a capacity of this rank's tokens, as if they were a whole micro-batch; 0: none.
inline std::shared_ptr<const ExpertPlan> plan_of(Stream& stream, const ExpertGroup& group,
                                                 const Choice& c, double capacity) {
  if (capacity == 0) return plan_experts(stream, group, c.ids, 0);
  const DropChoices::Attributes limit{.experts = group.experts, .capacity = capacity};
  NothingSaved nothing;
  return plan_experts(stream, group,
                      DropChoices::forward(stream, limit, {c.ids, c.gates}, nothing)[0],
                      rows_of_capacity(limit, c.ids.elements()));
}

}  // namespace shoestring::testing
