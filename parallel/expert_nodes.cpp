// The two-level form of parallel/expert_plan.h: what the ranks tell one another, and the legs of
// the ways. Letters are those of parallel/expert_node_rows.h.

#include <numeric>
#include <vector>

#include "parallel/expert_node_rows.h"
#include "parallel/expert_plan.h"

namespace shoestring {
namespace {

struct Parts {
  std::span<const int64_t> sent, received;  // numbers to and from each rank
};
void swap_numbers(Stream& stream, Communicator& ranks, const Tensor& in, const Tensor& out,
                  const Parts& parts) {
  ranks.all_to_all(view_of(std::span<const int32_t>(in.span<int32_t>())), parts.sent,
                   buffer_of(out.span<int32_t>()), parts.received, stream);
  stream.run([in, out] {});  // keeps the memory
}

// Numbers of rows of all legs, known to the host after the wait.
struct Splits {
  std::vector<int64_t> tokens_out, tokens_in, choices_out, choices_in;  // across, by node
  std::vector<int64_t> inside_out, inside_in;                           // by rank of the node
  std::vector<int64_t> slices;                                          // of all that arrived
};

void count_heads(const Tensor& heads, std::vector<int64_t>& tokens, std::vector<int64_t>& choices) {
  const int64_t width = heads.columns();
  for (int64_t a = 0; a < heads.rows(); ++a) {
    const int32_t* head = heads.data<int32_t>() + a * width;
    choices.push_back(std::accumulate(head, head + width - 1, int64_t{0}));
    tokens.push_back(head[width - 1]);
  }
}
std::vector<int64_t> sums_of_rows(const Tensor& counts) {
  std::vector<int64_t> sums;
  for (int64_t i = 0; i < counts.rows(); ++i) {
    const int32_t* row = counts.data<int32_t>() + i * counts.columns();
    sums.push_back(std::accumulate(row, row + counts.columns(), int64_t{0}));
  }
  return sums;
}

Splits fixed_splits(const NodePlaces& p, int64_t nodes, int64_t ranks, int64_t slices) {
  const std::vector<int64_t> tokens(static_cast<size_t>(nodes), p.tokens);
  const std::vector<int64_t> choices(static_cast<size_t>(nodes), p.choices);
  const std::vector<int64_t> inside(static_cast<size_t>(ranks), p.inside);
  return {.tokens_out = tokens,
          .tokens_in = tokens,
          .choices_out = choices,
          .choices_in = choices,
          .inside_out = inside,
          .inside_in = inside,
          .slices = std::vector<int64_t>(static_cast<size_t>(slices), ranks * p.inside)};
}

struct Counts {
  Tensor got;     // i32 [a][E/n + 1]
  Tensor passed;  // i32 [i][a][E/e], of each slice
  Splits splits;
};

// Heads to the relays, counts on to the experts' ranks, and the one wait, for exact counts.
Counts exchange_counts(Stream& stream, const ExpertGroup& g, const NodeHome& home) {
  const int64_t n = g.across->size(), l = g.inside->size();
  const int64_t width = home.heads.columns(), share = n * g.experts_here();
  Counts c{.got = row_numbers(stream, n * width).reshape({n, width}), .passed = {}, .splits = {}};
  const std::vector<int64_t> of_head(static_cast<size_t>(n), width);
  swap_numbers(stream, *g.across, home.heads, c.got, {of_head, of_head});
  const Tensor passing = row_numbers(stream, l * share).reshape({l, share});
  order_pass(stream, {.heads = c.got, .counts = passing, .ranks = l});
  const std::vector<int64_t> of_rank(static_cast<size_t>(l), share);
  const Tensor passed = row_numbers(stream, l * share).reshape({l, share});
  swap_numbers(stream, *g.inside, passing, passed, {of_rank, of_rank});
  const int64_t s = g.sources() / (n * l);
  c.passed = gather_counts(stream, g, passed).reshape({s, l * share});
  if (home.places.rows > 0) {
    c.splits = fixed_splits(home.places, n, l, s);
    return c;
  }
  stream.synchronize();
  count_heads(home.heads, c.splits.tokens_out, c.splits.choices_out);
  count_heads(c.got, c.splits.tokens_in, c.splits.choices_in);
  c.splits.inside_out = sums_of_rows(passing);
  c.splits.inside_in = sums_of_rows(passed);
  c.splits.slices = sums_of_rows(c.passed);
  return c;
}

NodeHome plan_home(Stream& stream, const ExpertGroup& g, const Tensor& ids,
                   const DispatchLayout& own, int64_t fixed_rows) {
  const int64_t nodes = g.across->size(), width = g.experts / nodes + 1, T = ids.rows();
  NodeHome home{.ids = ids, .own = own, .nodes = nodes, .places = places_of(g, ids, fixed_rows)};
  const NodePlaces& p = home.places;
  const bool fixed = fixed_rows > 0;
  home.heads = row_numbers(stream, nodes * width).reshape({nodes, width});
  home.tokens = row_numbers(stream, fixed ? nodes * p.tokens : T * std::min(nodes, ids.columns()));
  home.index = row_numbers(stream, fixed ? nodes * p.choices : ids.elements());
  home.token_rows = row_numbers(stream, T * nodes).reshape({T, nodes});
  if (fixed) {
    home.there = row_numbers(stream, nodes * p.choices);
    home.gates_there = row_numbers(stream, nodes * p.choices);
    home.back = row_numbers(stream, ids.elements());
    home.gates_back = row_numbers(stream, ids.elements());
  }
  order_home(stream, home);
  return home;
}

NodeRelay plan_relay(Stream& stream, const ExpertGroup& g, const NodeHome& home, const Counts& c) {
  const Splits& s = c.splits;
  const int64_t choices = total(s.choices_in), rows = total(s.inside_out);
  const int64_t chosen = home.ids.columns();
  NodeRelay r{.heads = c.got,
              .index = row_numbers(stream, choices),
              .chosen = chosen,
              .ranks = g.inside->size(),
              .places = home.places,
              .there = row_numbers(stream, rows),
              .back = row_numbers(stream, choices),
              .tokens = row_numbers(stream, rows),
              .gates_there = {},
              .gates_back = {},
              .node_rows = {}};
  if (g.sum_in_nodes) {
    r.gates_there = row_numbers(stream, total(s.tokens_in) * chosen);
    r.gates_back = row_numbers(stream, choices);
    r.node_rows =
        row_numbers(stream, total(s.tokens_in) * chosen).reshape({total(s.tokens_in), chosen});
  }
  const Tensor index = home.index.rows(0, total(s.choices_out));
  swap_numbers(stream, *g.across, index, r.index, {s.choices_out, s.choices_in});
  order_relay(stream, r);
  return r;
}

NodeSums plan_sums(const ExpertGroup& g, const NodeHome& home, const NodeRelay& relay,
                   const Splits& s, const RowOrder& arrival) {
  const int64_t rows = total(s.inside_out), choices = total(s.choices_out);
  const int64_t tokens = total(s.tokens_out), slots = relay.gates_there.elements();
  const bool fixed = home.places.rows > 0;
  const Tensor sent = fixed ? home.gates_there : home.own.choice_of.rows(0, choices);
  const Tensor back = fixed ? home.gates_back : home.own.row_of.reshape({home.ids.elements()});
  return {.inside = {.legs = {{.ranks = g.inside,
                               .order = {.there = {}, .back = {}, .from = rows, .to = rows},
                               .sent = s.inside_out,
                               .received = s.inside_in}},
                     .slices = {.ranks = g.slices, .rows = s.slices},
                     .order = arrival},
          .across = {.legs = {{.ranks = g.across,
                               .order = {.there = {}, .back = {}, .from = tokens, .to = tokens},
                               .sent = s.tokens_out,
                               .received = s.tokens_in}},
                     .order = {.there = {},
                               .back = {},
                               .from = total(s.tokens_in),
                               .to = total(s.tokens_in)}},
          .gates = {.legs = {{.ranks = g.across,
                              .order = {.there = sent,
                                        .back = back,
                                        .from = home.ids.elements(),
                                        .to = choices},
                              .sent = s.choices_out,
                              .received = s.choices_in}},
                    .order = {.there = relay.gates_there,
                              .back = relay.gates_back,
                              .from = total(s.choices_in),
                              .to = slots}},
          .node_rows = relay.node_rows,
          .token_rows = home.token_rows};
}

}  // namespace

std::shared_ptr<const ExpertPlan> plan_nodes(Stream& stream, const ExpertGroup& g,
                                             const Tensor& ids, DispatchLayout own,
                                             int64_t fixed_rows) {
  const NodeHome home = plan_home(stream, g, ids, own, fixed_rows);
  const Counts counts = exchange_counts(stream, g, home);
  const Splits& s = counts.splits;
  const NodeRelay relay = plan_relay(stream, g, home, counts);
  const int64_t rows = total(s.slices);
  const NodeArrival arrival{.counts = counts.passed,
                            .nodes = g.across->size(),
                            .ranks = g.inside->size(),
                            .slices = static_cast<int64_t>(s.slices.size()),
                            .places = home.places,
                            .there = row_numbers(stream, rows),
                            .back = row_numbers(stream, rows),
                            .offsets = row_numbers(stream, g.experts_here() * g.sources() + 1)};
  order_arrival(stream, arrival);
  const RowOrder end{.there = arrival.there, .back = arrival.back, .from = rows, .to = rows};
  const Tensor tokens = home.tokens.rows(0, total(s.tokens_out));
  auto way = [&](ExpertLeg across, const Tensor& there, const Tensor& back) {
    const int64_t arrived = total(across.received);
    return ExpertWay{
        .legs =
            {std::move(across),
             {.ranks = g.inside,
              .order = {.there = there, .back = back, .from = arrived, .to = total(s.inside_out)},
              .sent = s.inside_out,
              .received = s.inside_in}},
        .slices = {.ranks = g.slices, .rows = s.slices},
        .order = end};
  };
  ExpertPlan plan{
      .own = std::move(own),
      .offsets = arrival.offsets,
      .tokens = way(
          {.ranks = g.across,
           .order = {.there = tokens, .back = {}, .from = ids.rows(), .to = total(s.tokens_out)},
           .sent = s.tokens_out,
           .received = s.tokens_in},
          relay.tokens, {}),
      .choices = way({.ranks = g.across,
                      .order = {.there = home.there,
                                .back = home.back,
                                .from = ids.elements(),
                                .to = total(s.choices_out)},
                      .sent = s.choices_out,
                      .received = s.choices_in},
                     relay.there, relay.back),
      .sums = {}};
  if (g.sum_in_nodes) plan.sums = plan_sums(g, home, relay, s, end);
  return std::make_shared<ExpertPlan>(std::move(plan));
}

}  // namespace shoestring
