// Every communication op beside its gradient: <A x, y> = <x, A' y> in f64, summed over the ranks,
// with parts that are uneven or empty where they may be. Of ops that are not linear A is the
// derivative, by differences.

#include <set>

#include "parallel/context_all_to_all.h"
#include "parallel/context_cut.h"
#include "parallel/context_ring.h"
#include "parallel/expert_ops.h"
#include "parallel/row_ops.h"
#include "parallel/sequence_edges.h"
#include "tests/conformance/adjoint_case.h"
#include "tests/support/source_tree.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

template <class Op>
Products products_of(Here& here, const typename Op::Attributes& a, const Tensor& x) {
  typename Op::Saved saved;
  const Tensor ax = Op::forward(here.stream, a, {x}, saved)[0];
  const Tensor y = here.own(ax.shape(), "y");
  const Tensor back = Op::grad_input(here.stream, a, saved, {y})[0];
  return {dot(ax, y), dot(x, back)};
}

// A result that all ranks have, and use, alike: it counts once.
template <class Op>
Products products_alike(Here& here, const typename Op::Attributes& a, const Tensor& x) {
  typename Op::Saved saved;
  const Tensor ax = Op::forward(here.stream, a, {x}, saved)[0];
  const Tensor y = here.alike(ax.shape(), "y");
  const Tensor back = Op::grad_input(here.stream, a, saved, {y})[0];
  return {here.ranks.rank() == 0 ? dot(ax, y) : 0, dot(x, back)};
}

constexpr int64_t width = 3;

RankProducts gather_rows(int64_t rows) {
  return [=](Here& h) {
    return products_of<GatherRows>(h, {.group = &h.ranks}, h.own({rows, width}, "x"));
  };
}
RankProducts gather_alike(int64_t rows) {
  return [=](Here& h) {
    return products_alike<GatherAlike>(h, {.group = &h.ranks}, h.own({rows, width}, "x"));
  };
}
template <class Op>
RankProducts to_own_rows(int64_t rows) {
  return [=](Here& h) {
    return products_of<Op>(h, {.group = &h.ranks}, h.own({rows * h.ranks.size(), width}, "x"));
  };
}
RankProducts gather_sequences(int64_t length) {
  return [=](Here& h) {
    const SequenceAttributes a{.group = &h.ranks, .sequences = 2};
    return products_alike<GatherSequences>(h, a, h.own({2 * length, width}, "x"));
  };
}
RankProducts keep_sequences(int64_t length) {
  return [=](Here& h) {
    const SequenceAttributes a{.group = &h.ranks, .sequences = 2};
    return products_of<KeepSequences>(h, a, h.own({2 * length * h.ranks.size(), width}, "x"));
  };
}

// `heads`: query heads a rank has at the end; key heads are fewer than ranks by `copies`.
RankProducts heads_for_tokens(int64_t heads, int64_t copies) {
  return [=](Here& h) {
    const int64_t c = h.ranks.size(), kv = c / copies, rows = 2 * 6;
    const HeadExchange common{.ranks = &h.ranks, .batch = 2, .length = 6};
    const HeadsForTokens::Attributes a{common,
                                       {.heads = heads * c, .width = 3},
                                       {.heads = kv, .width = 5, .copies = copies},
                                       {.heads = kv, .width = 7, .copies = copies}};
    const Tensors<3> x{h.own({rows, heads * c * 3}, "q"), h.own({rows, kv * 5}, "k"),
                       h.own({rows, kv * 7}, "v")};
    NothingSaved saved;
    const Tensors<3> ax = HeadsForTokens::forward(h.stream, a, x, saved);
    Tensors<3> y;
    for (size_t i = 0; i < 3; ++i) y[i] = h.own(ax[i].shape(), cat("y", i));
    const Tensors<3> back = HeadsForTokens::grad_input(h.stream, a, saved, y);
    Products p;
    for (size_t i = 0; i < 3; ++i) p.forward += dot(ax[i], y[i]), p.backward += dot(x[i], back[i]);
    return p;
  };
}
RankProducts tokens_for_heads(int64_t heads) {
  return [=](Here& h) {
    const int64_t c = h.ranks.size();
    const HeadExchange common{.ranks = &h.ranks, .batch = 2, .length = 6};
    return products_of<TokensForHeads>(h, {common, {.heads = heads * c, .width = 3}},
                                       h.own({2 * 6 * c, heads * 3}, "o"));
  };
}

// Tokens and choices by rank: one has none, the others unequal numbers.
constexpr int64_t experts = 12, chosen = 3;
struct ExpertRank {
  ExpertRank(Here& h, const Standing& standing, Load load, double capacity)
      : group(h.ranks, standing, experts),
        tokens(h.ranks.rank() == 1 ? 0 : 4 + 3 * h.ranks.rank()) {
    // With a fixed number of rows ranks must have as many tokens.
    if (standing.fixed_rows > 0 || capacity > 0) tokens = 9;
    const Choice c = choices_of(h.device, load, h.ranks.rank(),
                                {tokens, chosen, experts, standing.ranks}, Dtype::f64);
    gates = c.gates;
    plan = plan_of(h.stream, group.group, c, capacity);
  }
  GroupOf group;
  int64_t tokens;
  Tensor gates;
  std::shared_ptr<const ExpertPlan> plan;
};

struct ExpertSetting {
  Standing standing;
  Load load = Load::random;
  double capacity = 0;
  std::string text() const {
    return cat(", ", standing.text(), ", load ", static_cast<int>(load), ", capacity ", capacity);
  }
};

RankProducts expert_send(const ExpertSetting& s) {
  return [=](Here& h) {
    const ExpertRank r(h, s.standing, s.load, s.capacity);
    return products_of<ExpertSend>(h, {.plan = r.plan, .encoding = {}},
                                   h.own({r.tokens, width}, "x"));
  };
}
RankProducts expert_return(const ExpertSetting& s) {
  return [=](Here& h) {
    const ExpertRank r(h, s.standing, s.load, s.capacity);
    const ExpertReturn::Attributes a{.way = {r.plan, &r.plan->choices}, .encoding = {}};
    NothingSaved saved;
    const Tensor x = h.own({r.plan->choices.order.to, width}, "x");
    const Tensor home = ExpertReturn::forward(h.stream, a, {x}, saved)[0];
    Tensor y = h.own(home.shape(), "y");
    // Rows of choices that were dropped stand behind the others and mean nothing.
    const Tensor rest = y.rows(r.plan->own.offsets.span<int32_t>().back(), y.rows());
    std::memset(rest.raw(), 0, rest.bytes());
    const Tensor back = ExpertReturn::grad_input(h.stream, a, saved, {y})[0];
    return Products{dot(home, y), dot(x, back)};
  };
}
RankProducts expert_gates(const ExpertSetting& s) {
  return [=](Here& h) {
    const ExpertRank r(h, s.standing, s.load, s.capacity);
    return products_of<ExpertGates>(h, {.plan = r.plan}, r.gates);
  };
}

// Rows of two documents, unequal, whose border lies on no rank's border.
Tensor own_first_key(Here& h, const ContextShare& share) {
  Tensor t(h.device, {1, share.tokens()}, Dtype::i32);
  const int64_t border = share.row_length() / 3 + 1;
  for (int64_t i = 0; i < share.tokens(); ++i) {
    t.data<int32_t>()[i] = static_cast<int32_t>(share.column(i) < border ? 0 : border);
  }
  return t;
}
// <A dx, y> by differences, A the derivative at (q, k, v).
RankProducts ring_attention(int64_t heads, int64_t kv_heads, int64_t window) {
  return [=](Here& h) {
    constexpr int64_t dim = 4;
    const int c = h.ranks.size();
    const ContextShare share = context_share(6 * c, h.ranks.rank(), c);
    const auto ring = h.ranks.split(0, h.ranks.rank());
    Stream transfers = Stream::worker(h.device, "ring");
    const AbortOnUnwind abort(*ring);
    const RingAttentionOp::Attributes a{.shape = {.batch = 1,
                                                  .length = share.tokens(),
                                                  .q_heads = heads,
                                                  .kv_heads = kv_heads,
                                                  .head_dim = dim,
                                                  .v_head_dim = dim,
                                                  .scale = 0.7,
                                                  .window = window},
                                        .ring = ring.get(),
                                        .transfers = &transfers};
    const int64_t rows = share.tokens();
    const auto three = [&](const std::string& what) {
      return Tensors<3>{h.own({rows, heads * dim}, "q" + what),
                        h.own({rows, kv_heads * dim}, "k" + what),
                        h.own({rows, kv_heads * dim}, "v" + what)};
    };
    const Tensors<3> x = three(""), dx = three(" moved");
    const Tensor first_key = own_first_key(h, share);
    const auto at = [&](double step, RingAttentionOp::Saved& saved) {
      return RingAttentionOp::forward(
          h.stream, a,
          {moved(x[0], dx[0], step), moved(x[1], dx[1], step), moved(x[2], dx[2], step), first_key},
          saved)[0];
    };
    constexpr double step = 1e-5;
    RingAttentionOp::Saved saved, unused;
    const Tensor o = at(0, saved);
    const Tensor y = h.own(o.shape(), "y");
    const double slope = (dot(at(step, unused), y) - dot(at(-step, unused), y)) / (2 * step);
    const Tensors<4> back = RingAttentionOp::grad_input(h.stream, a, saved, {y});
    Products p{slope, 0};
    for (size_t i = 0; i < 3; ++i) p.backward += dot(dx[i], back[i]);
    return p;
  };
}

void for_all_ops(const std::function<void(const std::string& op, const std::string& what, int ranks,
                                          const RankProducts& run)>& visit) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    visit("GatherRows", "", ranks, gather_rows(5));
    visit("ScatterRows", "", ranks, to_own_rows<ScatterRows>(4));
    visit("GatherAlike", "", ranks, gather_alike(5));
    visit("KeepRows", "", ranks, to_own_rows<KeepRows>(2));
    visit("GatherSequences", "", ranks, gather_sequences(4));
    visit("KeepSequences", "", ranks, keep_sequences(4));
    for (const int64_t copies : {1, 2, 4}) {
      if (ranks % copies != 0) continue;
      visit("HeadsForTokens", cat(", ", copies, " copies"), ranks, heads_for_tokens(2, copies));
    }
    visit("TokensForHeads", "", ranks, tokens_for_heads(2));
    visit("RingAttentionOp", "", ranks, ring_attention(2, 2, 0));
    visit("RingAttentionOp", ", shared heads and a window", ranks, ring_attention(4, 1, 5));
  }
  const std::vector<Standing> standings = {{.ranks = 2},
                                           {.ranks = 3},
                                           {.ranks = 4, .nodes = 2},
                                           {.ranks = 4, .nodes = 2, .sum_in_nodes = true},
                                           {.ranks = 6, .nodes = 3}};
  for (const Load load :
       {Load::random, Load::one_expert, Load::last_rank, Load::own_rank, Load::nothing_at_home}) {
    std::vector<ExpertSetting> settings;
    for (const Standing& s : standings) settings.push_back({s, load});
    settings.push_back({{.ranks = 3}, load, 0.8});
    settings.push_back({{.ranks = 3, .fixed_rows = 9}, load, 0.8});
    settings.push_back({{.ranks = 4, .nodes = 2, .fixed_rows = 4}, load, 0.8});
    settings.push_back(
        {{.ranks = 6, .nodes = 3, .fixed_rows = 3, .sum_in_nodes = true}, load, 0.8});
    for (const ExpertSetting& s : settings) {
      visit("ExpertSend", s.text(), s.standing.ranks, expert_send(s));
      visit("ExpertReturn", s.text(), s.standing.ranks, expert_return(s));
      if (s.standing.sum_in_nodes) {
        visit("ExpertGates", s.text(), s.standing.ranks, expert_gates(s));
      }
    }
  }
}

TEST(Adjoints, OfEveryCommunicationOp) {
  int count = 0;
  for_all_ops(
      [&](const std::string& op, const std::string& what, int ranks, const RankProducts& run) {
        ++count;
        try {
          expect_adjoint(op + what, ranks, run, op == "RingAttentionOp" ? 1e-8 : 1e-12);
        } catch (const Error& e) {
          ADD_FAILURE() << e.what();
        }
      });
  EXPECT_GT(count, 100);
}

// An op that somebody adds and forgets here is found in the headers.
TEST(Adjoints, NoOpIsForgotten) {
  std::set<std::string> tried;
  for_all_ops([&](const std::string& op, const std::string&, int, const RankProducts&) {
    tried.insert(op);
  });
  constexpr std::string_view begin = "static_assert(", ops = "Op<";
  int found = 0;
  for (const SourceFile& file : source_files()) {
    if (file.folder() != "parallel" || !file.is_header()) continue;
    for (const std::string& line : file.lines) {
      const size_t at = line.find(ops);
      if (!line.starts_with(begin) || at == std::string::npos) continue;
      const size_t from = at + ops.size();
      const std::string name = line.substr(from, line.find('>') - from);
      EXPECT_TRUE(tried.contains(name))
          << file.path << ": the op " << name << " has no adjoint test";
      ++found;
    }
  }
  EXPECT_EQ(found, static_cast<int>(tried.size()));
}

}  // namespace
}  // namespace shoestring
