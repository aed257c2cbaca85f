#include "parallel/expert_node_rows.h"

#include <algorithm>
#include <vector>

namespace shoestring {
namespace {

void fill_none(const Tensor& numbers) {
  if (numbers) std::fill_n(numbers.data<int32_t>(), numbers.elements(), -1);
}

// A choice whose row stands at home; returns its place among those sent.
int32_t send_choice(const NodeHome& h, int64_t choice, int32_t row, int64_t node) {
  if (!h.there) return row;
  const int64_t of_node = (h.own.offsets.elements() - 1) / h.nodes;
  const int32_t first = h.own.offsets.data<int32_t>()[node * of_node];
  const auto slot = static_cast<int32_t>(node * h.places.choices + row - first);
  h.there.data<int32_t>()[slot] = row;
  h.back.data<int32_t>()[row] = slot;
  h.gates_there.data<int32_t>()[slot] = static_cast<int32_t>(choice);
  h.gates_back.data<int32_t>()[choice] = slot;
  return slot;
}

void home_cpu(Stream& stream, const NodeHome& arguments) {
  stream.run([h = arguments] {
    const int64_t experts = h.own.offsets.elements() - 1, of_node = experts / h.nodes;
    const int64_t chosen = h.ids.columns();
    const int32_t* offsets = h.own.offsets.data<int32_t>();
    int32_t* heads = h.heads.data<int32_t>();
    for (int64_t e = 0; e < experts; ++e) {
      check_fixed_rows(offsets[e + 1] - offsets[e], h.places.rows, e);
      heads[e / of_node * (of_node + 1) + e % of_node] = offsets[e + 1] - offsets[e];
    }
    int32_t* place = h.token_rows.data<int32_t>();
    for (const Tensor& t :
         {h.token_rows, h.tokens, h.index, h.there, h.back, h.gates_there, h.gates_back}) {
      fill_none(t);
    }
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
      h.index.data<int32_t>()[send_choice(h, c, row, node)] = at;
    }
    int32_t before = 0;
    for (int64_t b = 0; b < h.nodes; ++b) {
      const std::vector<int32_t>& list = tokens[static_cast<size_t>(b)];
      std::copy(list.begin(), list.end(), h.tokens.data<int32_t>() + before);
      heads[b * (of_node + 1) + of_node] = static_cast<int32_t>(list.size());
      for (int64_t t = 0; t < h.ids.rows(); ++t) {
        int32_t& at = place[t * h.nodes + b];
        if (at >= 0) at += before;
      }
      before += static_cast<int32_t>(h.there ? h.places.tokens : list.size());
    }
  });
}

void pass_cpu(Stream& stream, const NodePass& arguments) {
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

struct Arrived {
  std::vector<int64_t> choices, tokens;  // where those of a node, and of its experts, begin
};
Arrived arrived(const Tensor& heads, const NodePlaces& places) {
  const int64_t nodes = heads.rows(), experts = heads.columns() - 1;
  Arrived at;
  int64_t choice = 0, token = 0;
  for (int64_t a = 0; a < nodes; ++a) {
    if (places.rows > 0) choice = a * places.choices, token = a * places.tokens;
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
void fill_slots(const NodeRelay& r) {
  const std::span<const int32_t> row_of_choice = r.back.span<int32_t>();
  const std::span<int32_t> rows = r.node_rows.span<int32_t>();
  const std::span<int32_t> there = r.gates_there.span<int32_t>();
  const std::span<int32_t> back = r.gates_back.span<int32_t>();
  for (size_t choice = 0; choice < row_of_choice.size(); ++choice) {
    const int32_t row = row_of_choice[choice];
    if (row < 0) continue;
    auto slot = static_cast<size_t>(r.tokens.data<int32_t>()[row] * r.chosen);
    while (rows[slot] >= 0) ++slot;
    rows[slot] = row;
    there[slot] = static_cast<int32_t>(choice);
    back[choice] = static_cast<int32_t>(slot);
  }
}

void relay_cpu(Stream& stream, const NodeRelay& arguments) {
  stream.run([r = arguments] {
    const int64_t nodes = r.heads.rows(), experts = r.heads.columns() - 1;
    const int64_t here = experts / r.ranks;
    const Arrived at = arrived(r.heads, r.places);
    for (const Tensor& t : {r.there, r.back, r.tokens, r.gates_there, r.gates_back, r.node_rows}) {
      fill_none(t);
    }
    int64_t row = 0;
    for (int64_t x = 0; x < experts; ++x) {
      if (r.places.rows > 0 && x % here == 0) row = x / here * r.places.inside;
      for (int64_t a = 0; a < nodes; ++a) {
        const int64_t first = at.choices[static_cast<size_t>(a * experts + x)];
        const int64_t count = r.heads.data<int32_t>()[a * (experts + 1) + x];
        for (int64_t c = first; c < first + count; ++c, ++row) {
          r.there.data<int32_t>()[row] = static_cast<int32_t>(c);
          r.back.data<int32_t>()[c] = static_cast<int32_t>(row);
          r.tokens.data<int32_t>()[row] =
              static_cast<int32_t>(at.tokens[static_cast<size_t>(a)] + r.index.data<int32_t>()[c]);
        }
      }
    }
    if (r.node_rows) fill_slots(r);
  });
}

void arrival_cpu(Stream& stream, const NodeArrival& arguments) {
  stream.run([w = arguments] {
    const int64_t here = w.counts.elements() / (w.slices * w.ranks * w.nodes);
    // `i` runs over the ranks of all slices.
    auto count = [&](int64_t i, int64_t a, int64_t e) {
      return w.counts.data<int32_t>()[(i * w.nodes + a) * here + e];
    };
    std::vector<int32_t> first(static_cast<size_t>(w.counts.elements()));
    int32_t at = 0;
    for (int64_t s = 0; s < w.counts.elements(); ++s) {
      const int64_t i = s / (here * w.nodes);
      if (w.places.rows > 0 && s % (here * w.nodes) == 0) {
        at = static_cast<int32_t>(i * w.places.inside);
      }
      first[static_cast<size_t>(s)] = at;
      at += count(i, s % w.nodes, s / w.nodes % here);
    }
    fill_none(w.there);
    fill_none(w.back);
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

}  // namespace

NodePlaces places_of(const ExpertGroup& g, const Tensor& ids, int64_t rows) {
  if (rows == 0) return {};
  const int64_t n = g.across->size(), of_node = rows * (g.experts / n);
  return {.rows = rows,
          .tokens = std::min(ids.rows(), of_node),
          .choices = std::min(ids.elements(), of_node),
          .inside = n * g.experts_here() * rows};
}

void order_home(Stream& stream, const NodeHome& home) {
  on<const NodeHome&>(stream, "expert_plan", home_cpu, nullptr, home);
}

void order_pass(Stream& stream, const NodePass& pass) {
  on<const NodePass&>(stream, "expert_plan", pass_cpu, nullptr, pass);
}

void order_relay(Stream& stream, const NodeRelay& relay) {
  on<const NodeRelay&>(stream, "expert_plan", relay_cpu, nullptr, relay);
}

void order_arrival(Stream& stream, const NodeArrival& arrival) {
  on<const NodeArrival&>(stream, "expert_plan", arrival_cpu, nullptr, arrival);
}

}  // namespace shoestring
