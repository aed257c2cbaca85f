// The two-level form of parallel/expert_plan.h. Letters: n nodes, l ranks of a node, E/n experts of
// a node; a and b number nodes, i and j ranks of this node. A relay is the rank (b, i) that takes
// what (a, i) sends to node b.

#include "parallel/expert_plan.h"

#include <algorithm>
#include <numeric>

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

// What a rank tells the relays: for each node its choices by expert, and its tokens.
struct Home {
  Tensor ids;
  DispatchLayout own;
  int64_t nodes = 0;
  Tensor heads;       // i32 [n, E/n + 1]: choices of each expert, then tokens
  Tensor tokens;      // i32 [T min(n, K)]: the tokens of each node, one node behind the other
  Tensor index;       // i32 [T K]: of each row at home, its token's number among those of its node
  Tensor token_rows;  // i32 [T, n]: the place in `tokens`, or -1
};

void home_cpu(Stream& stream, const Home& arguments) {
  stream.run([h = arguments] {
    const int64_t experts = h.own.offsets.elements() - 1, of_node = experts / h.nodes;
    const int64_t chosen = h.ids.columns();
    const int32_t* offsets = h.own.offsets.data<int32_t>();
    int32_t* heads = h.heads.data<int32_t>();
    for (int64_t e = 0; e < experts; ++e) {
      heads[e / of_node * (of_node + 1) + e % of_node] = offsets[e + 1] - offsets[e];
    }
    int32_t* place = h.token_rows.data<int32_t>();
    std::fill_n(place, h.token_rows.elements(), -1);
    std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(h.nodes));
    for (int64_t c = 0; c < h.ids.elements(); ++c) {
      const int32_t row = h.own.row_of.data<int32_t>()[c];
      if (row < 0) continue;
      const int64_t node = h.ids.data<int32_t>()[c] / of_node, token = c / chosen;
      std::vector<int32_t>& list = tokens[static_cast<size_t>(node)];
      int32_t& at = place[token * h.nodes + node];
      if (at < 0) {
        at = static_cast<int32_t>(list.size());
        list.push_back(static_cast<int32_t>(token));
      }
      h.index.data<int32_t>()[row] = at;
    }
    int32_t* to = h.tokens.data<int32_t>();
    int32_t before = 0;
    for (int64_t b = 0; b < h.nodes; ++b) {
      const std::vector<int32_t>& list = tokens[static_cast<size_t>(b)];
      to = std::copy(list.begin(), list.end(), to);
      heads[b * (of_node + 1) + of_node] = static_cast<int32_t>(list.size());
      for (int64_t t = 0; t < h.ids.rows(); ++t) {
        int32_t& at = place[t * h.nodes + b];
        if (at >= 0) at += before;
      }
      before += static_cast<int32_t>(list.size());
    }
  });
}

// What a relay tells the ranks of its node: [j][a][experts of j], from heads [a][E/n + 1].
struct Pass {
  Tensor heads, counts;
  int64_t ranks = 0;
};
void pass_cpu(Stream& stream, const Pass& arguments) {
  stream.run([p = arguments] {
    const int64_t width = p.heads.columns(), here = (width - 1) / p.ranks;
    int32_t* to = p.counts.data<int32_t>();
    for (int64_t j = 0; j < p.ranks; ++j) {
      for (int64_t a = 0; a < p.heads.rows(); ++a) {
        to = std::copy_n(p.heads.data<int32_t>() + a * width + j * here, here, to);
      }
    }
  });
}

// The order in which a relay sends on: [j][expert of j][a][token], from choices [a][expert][token].
struct Relay {
  Tensor heads;  // [a][E/n + 1]
  Tensor index;  // of each choice, its token's number among those of a
  int64_t chosen = 0;
  Tensor there, back;                         // of choices
  Tensor tokens;                              // the row of the choice's token among all that came
  Tensor gates_there, gates_back, node_rows;  // or empty: for sums inside nodes
};

struct Arrived {
  std::vector<int64_t> choices, tokens;  // where those of a node, and of its experts, begin
};
Arrived arrived(const Tensor& heads) {
  const int64_t nodes = heads.rows(), experts = heads.columns() - 1;
  Arrived at;
  int64_t choice = 0, token = 0;
  for (int64_t a = 0; a < nodes; ++a) {
    const int32_t* head = heads.data<int32_t>() + a * (experts + 1);
    at.tokens.push_back(token);
    token += head[experts];
    for (int64_t x = 0; x < experts; ++x) {
      at.choices.push_back(choice);
      choice += head[x];
    }
  }
  return at;
}

// Each token's choices take its slots in the order of experts.
void fill_slots(const Relay& r, const std::vector<int32_t>& row_of_choice) {
  const std::span<int32_t> rows = r.node_rows.span<int32_t>();
  const std::span<int32_t> there = r.gates_there.span<int32_t>();
  const std::span<int32_t> back = r.gates_back.span<int32_t>();
  std::fill(rows.begin(), rows.end(), -1);
  std::fill(there.begin(), there.end(), -1);
  for (size_t choice = 0; choice < row_of_choice.size(); ++choice) {
    const int32_t row = row_of_choice[choice];
    auto slot = static_cast<size_t>(r.tokens.data<int32_t>()[row] * r.chosen);
    while (rows[slot] >= 0) ++slot;
    rows[slot] = row;
    there[slot] = static_cast<int32_t>(choice);
    back[choice] = static_cast<int32_t>(slot);
  }
}

void relay_cpu(Stream& stream, const Relay& arguments) {
  stream.run([r = arguments] {
    const int64_t nodes = r.heads.rows(), experts = r.heads.columns() - 1;
    const Arrived at = arrived(r.heads);
    std::vector<int32_t> row_of_choice(static_cast<size_t>(r.there.elements()));
    int32_t row = 0;
    for (int64_t x = 0; x < experts; ++x) {
      for (int64_t a = 0; a < nodes; ++a) {
        const int64_t first = at.choices[static_cast<size_t>(a * experts + x)];
        const int64_t count = r.heads.data<int32_t>()[a * (experts + 1) + x];
        for (int64_t c = first; c < first + count; ++c, ++row) {
          r.there.data<int32_t>()[row] = static_cast<int32_t>(c);
          r.back.data<int32_t>()[c] = row;
          row_of_choice[static_cast<size_t>(c)] = row;
          r.tokens.data<int32_t>()[row] =
              static_cast<int32_t>(at.tokens[static_cast<size_t>(a)] + r.index.data<int32_t>()[c]);
        }
      }
    }
    if (r.node_rows) fill_slots(r, row_of_choice);
  });
}

// The order at the experts: [expert][source rank a l + i][slice], from [slice][i][expert][a].
struct Arrival {
  Tensor counts;  // i32 [slice][i][a][expert]
  int64_t nodes = 0, ranks = 0, slices = 1;
  Tensor there, back, offsets;
};
void arrival_cpu(Stream& stream, const Arrival& arguments) {
  stream.run([w = arguments] {
    const int64_t here = w.counts.elements() / (w.slices * w.ranks * w.nodes);
    // `i` runs over the ranks of all slices.
    auto count = [&](int64_t i, int64_t a, int64_t e) {
      return w.counts.data<int32_t>()[(i * w.nodes + a) * here + e];
    };
    std::vector<int32_t> first(static_cast<size_t>(w.counts.elements()));
    int32_t at = 0;
    for (int64_t s = 0; s < w.counts.elements(); ++s) {
      first[static_cast<size_t>(s)] = at;
      at += count(s / (here * w.nodes), s % w.nodes, s / w.nodes % here);
    }
    int32_t* offsets = w.offsets.data<int32_t>();
    int32_t row = *offsets = 0;
    for (int64_t e = 0; e < here; ++e) {
      for (int64_t source = 0; source < w.nodes * w.ranks * w.slices; ++source) {
        const int64_t rank = source / w.slices, a = rank / w.ranks;
        const int64_t i = source % w.slices * w.ranks + rank % w.ranks;
        const int32_t begin = first[static_cast<size_t>((i * here + e) * w.nodes + a)];
        for (int32_t c = begin; c < begin + count(i, a, e); ++c, ++row) {
          w.there.data<int32_t>()[row] = c;
          w.back.data<int32_t>()[c] = row;
        }
        *++offsets = row;
      }
    }
  });
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

struct Counts {
  Tensor got;     // i32 [a][E/n + 1]
  Tensor passed;  // i32 [i][a][E/e], of each slice
  Splits splits;
};

// Heads to the relays, counts on to the experts' ranks, and the one wait.
Counts exchange_counts(Stream& stream, const ExpertGroup& g, const Home& home) {
  const int64_t n = g.across->size(), l = g.inside->size();
  const int64_t width = home.heads.columns(), share = n * g.experts_here();
  Counts c{.got = row_numbers(stream, n * width).reshape({n, width}), .passed = {}, .splits = {}};
  const std::vector<int64_t> of_head(static_cast<size_t>(n), width);
  swap_numbers(stream, *g.across, home.heads, c.got, {of_head, of_head});
  const Tensor passing = row_numbers(stream, l * share).reshape({l, share});
  on<const Pass&>(stream, "expert_plan", pass_cpu, nullptr,
                  {.heads = c.got, .counts = passing, .ranks = l});
  const std::vector<int64_t> of_rank(static_cast<size_t>(l), share);
  const Tensor passed = row_numbers(stream, l * share).reshape({l, share});
  swap_numbers(stream, *g.inside, passing, passed, {of_rank, of_rank});
  const int64_t s = g.sources() / (n * l);
  c.passed = gather_counts(stream, g, passed).reshape({s, l * share});
  stream.synchronize();
  count_heads(home.heads, c.splits.tokens_out, c.splits.choices_out);
  count_heads(c.got, c.splits.tokens_in, c.splits.choices_in);
  c.splits.inside_out = sums_of_rows(passing);
  c.splits.inside_in = sums_of_rows(passed);
  c.splits.slices = sums_of_rows(c.passed);
  return c;
}

Home tell_home(Stream& stream, int64_t nodes, const Tensor& ids, const DispatchLayout& own) {
  const int64_t experts = own.offsets.elements() - 1, width = experts / nodes + 1;
  const Home home{
      .ids = ids,
      .own = own,
      .nodes = nodes,
      .heads = row_numbers(stream, nodes * width).reshape({nodes, width}),
      .tokens = row_numbers(stream, ids.rows() * std::min(nodes, ids.columns())),
      .index = row_numbers(stream, ids.elements()),
      .token_rows = row_numbers(stream, ids.rows() * nodes).reshape({ids.rows(), nodes})};
  on<const Home&>(stream, "expert_plan", home_cpu, nullptr, home);
  return home;
}

Relay order_relay(Stream& stream, const ExpertGroup& g, const Home& home, const Counts& c) {
  const Splits& s = c.splits;
  const int64_t choices = total(s.choices_in), chosen = home.ids.columns();
  Relay r{.heads = c.got,
          .index = row_numbers(stream, choices),
          .chosen = chosen,
          .there = row_numbers(stream, choices),
          .back = row_numbers(stream, choices),
          .tokens = row_numbers(stream, choices),
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
  on<const Relay&>(stream, "expert_plan", relay_cpu, nullptr, r);
  return r;
}

NodeSums plan_sums(const ExpertGroup& g, const Home& home, const Relay& relay, const Splits& s,
                   const RowOrder& arrival) {
  const int64_t rows = total(s.inside_out), choices = total(s.choices_out);
  const int64_t tokens = total(s.tokens_out), slots = relay.gates_there.elements();
  const Tensor row_of = home.own.row_of.reshape({home.ids.elements()});
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
                              .order = {.there = home.own.choice_of.rows(0, choices),
                                        .back = row_of,
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
                                             const Tensor& ids, DispatchLayout own) {
  const Home home = tell_home(stream, g.across->size(), ids, own);
  const Counts counts = exchange_counts(stream, g, home);
  const Splits& s = counts.splits;
  const Relay relay = order_relay(stream, g, home, counts);
  const int64_t rows = total(s.slices);
  const Arrival arrival{.counts = counts.passed,
                        .nodes = g.across->size(),
                        .ranks = g.inside->size(),
                        .slices = static_cast<int64_t>(s.slices.size()),
                        .there = row_numbers(stream, rows),
                        .back = row_numbers(stream, rows),
                        .offsets = row_numbers(stream, g.experts_here() * g.sources() + 1)};
  on<const Arrival&>(stream, "expert_plan", arrival_cpu, nullptr, arrival);
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
      .choices = way(
          {.ranks = g.across,
           .order = {.there = {}, .back = {}, .from = ids.elements(), .to = total(s.choices_out)},
           .sent = s.choices_out,
           .received = s.choices_in},
          relay.there, relay.back),
      .sums = {}};
  if (g.sum_in_nodes) plan.sums = plan_sums(g, home, relay, s, end);
  return std::make_shared<ExpertPlan>(std::move(plan));
}

}  // namespace shoestring
