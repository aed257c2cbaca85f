#include "parallel/expert_plan.h"

#include <algorithm>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

struct CountWork {
  Tensor offsets, counts;
};
void count_cpu(Stream& stream, const CountWork& arguments) {
  stream.run([a = arguments] {
    const int32_t* offsets = a.offsets.data<int32_t>();
    int32_t* counts = a.counts.data<int32_t>();
    for (int64_t e = 0; e < a.counts.elements(); ++e) counts[e] = offsets[e + 1] - offsets[e];
  });
}

// One level. `got`: i32 [slices source ranks, experts here], the rows that each rank sends to each
// expert of this one, of all slices. With fixed rows f is above 0, and an expert's rows of a source
// begin f behind those of the expert before.
struct FlatWork {
  Tensor own_offsets, choice_of, got;
  int64_t chosen = 0, f = 0, slices = 1;
  Tensor tokens_there, choices_there, choices_back;  // the last two with fixed rows
  Tensor there, back, offsets;
};

// The rows in the order of sending, where that is not the order at home.
void order_sending(const FlatWork& w) {
  const int32_t* own = w.own_offsets.data<int32_t>();
  const int32_t* choice_of = w.choice_of.data<int32_t>();
  const std::span<int32_t> tokens = w.tokens_there.span<int32_t>();
  if (w.f == 0) {
    for (size_t row = 0; row < tokens.size(); ++row) {
      tokens[row] = static_cast<int32_t>(choice_of[row] / w.chosen);
    }
    return;
  }
  const std::span<int32_t> there = w.choices_there.span<int32_t>();
  const std::span<int32_t> back = w.choices_back.span<int32_t>();
  std::fill(tokens.begin(), tokens.end(), -1);
  std::fill(there.begin(), there.end(), -1);
  std::fill(back.begin(), back.end(), -1);
  const int64_t experts = w.own_offsets.elements() - 1;
  for (int64_t e = 0; e < experts; ++e) {
    check_fixed_rows(own[e + 1] - own[e], w.f, e);
    for (int32_t row = own[e]; row < own[e + 1]; ++row) {
      const int64_t slot = e * w.f + row - own[e];
      tokens[static_cast<size_t>(slot)] = static_cast<int32_t>(choice_of[row] / w.chosen);
      there[static_cast<size_t>(slot)] = row;
      back[static_cast<size_t>(row)] = static_cast<int32_t>(slot);
    }
  }
}

// From [slice][source][expert] to [expert][source][slice].
void order_arrival(const FlatWork& w) {
  const int64_t segments = w.got.elements(), here = w.got.columns();
  const int64_t sources = w.got.rows() / w.slices;
  const int32_t* got = w.got.data<int32_t>();
  std::vector<int64_t> first(static_cast<size_t>(segments));  // arrived row of each segment
  int64_t at = 0;
  for (int64_t i = 0; i < segments; ++i) {
    first[static_cast<size_t>(i)] = w.f > 0 ? i * w.f : at;
    at += got[i];
    check_fixed_rows(got[i], w.f, i % here);
  }
  const std::span<int32_t> there = w.there.span<int32_t>(), back = w.back.span<int32_t>();
  std::fill(there.begin(), there.end(), -1);
  std::fill(back.begin(), back.end(), -1);
  int32_t* offsets = w.offsets.data<int32_t>();
  int32_t row = *offsets = 0;
  for (int64_t e = 0; e < here; ++e) {
    for (int64_t s = 0; s < sources * w.slices; ++s) {
      const int64_t segment = (s % w.slices * sources + s / w.slices) * here + e;
      const int64_t begin = first[static_cast<size_t>(segment)];
      for (int64_t i = begin; i < begin + got[segment]; ++i, ++row) {
        there[static_cast<size_t>(row)] = static_cast<int32_t>(i);
        back[static_cast<size_t>(i)] = row;
      }
      *++offsets = row;
    }
  }
}

void flat_cpu(Stream& stream, const FlatWork& arguments) {
  stream.run([w = arguments] {
    order_sending(w);
    order_arrival(w);
  });
}

// Rows to and from each rank: sums of `here` counts each.
std::vector<int64_t> row_counts(const Tensor& counts, int64_t ranks, int64_t f) {
  const int64_t here = counts.elements() / ranks;
  std::vector<int64_t> sums(static_cast<size_t>(ranks), here * f);
  if (f > 0) return sums;
  for (int64_t i = 0; i < counts.elements(); ++i) {
    sums[static_cast<size_t>(i / here)] += counts.data<int32_t>()[i];
  }
  return sums;
}

std::shared_ptr<const ExpertPlan> plan_flat(Stream& stream, const ExpertGroup& group,
                                            const Tensor& ids, DispatchLayout own, int64_t f) {
  Communicator& ranks = *group.ranks;
  const int64_t e = ranks.size(), here = group.experts_here();
  const Tensor counts = row_numbers(stream, group.experts);
  const Tensor got = row_numbers(stream, group.experts).reshape({e, here});
  on<const CountWork&>(stream, "expert_plan", count_cpu, nullptr, {own.offsets, counts});
  const std::vector<int64_t> each(static_cast<size_t>(e), here);
  ranks.all_to_all(view_of(std::span<const int32_t>(counts.span<int32_t>())), each,
                   buffer_of(got.span<int32_t>()), each, stream);
  const Tensor of_slices = gather_counts(stream, group, got);
  if (f == 0) stream.synchronize();
  const std::vector<int64_t> sent = row_counts(counts, e, f), received = row_counts(got, e, f);
  const int64_t s = group.sources() / e;
  const ExpertSlices slices{.ranks = group.slices, .rows = row_counts(of_slices, s, f)};
  const int64_t rows = total(slices.rows);
  FlatWork w{.own_offsets = own.offsets,
             .choice_of = own.choice_of,
             .got = of_slices.reshape({s * e, here}),
             .chosen = ids.columns(),
             .f = f,
             .slices = s,
             .tokens_there = row_numbers(stream, total(sent)),
             .choices_there = {},
             .choices_back = {},
             .there = row_numbers(stream, rows),
             .back = row_numbers(stream, rows),
             .offsets = row_numbers(stream, here * group.sources() + 1)};
  if (f > 0) {
    w.choices_there = row_numbers(stream, total(sent));
    w.choices_back = row_numbers(stream, ids.elements());
  }
  on<const FlatWork&>(stream, "expert_plan", flat_cpu, nullptr, w);
  stream.run([counts] {});  // read by the ranks
  const RowOrder arrival{.there = w.there, .back = w.back, .from = rows, .to = rows};
  auto way = [&](RowOrder order) {
    return ExpertWay{
        .legs = {{.ranks = &ranks, .order = std::move(order), .sent = sent, .received = received}},
        .slices = slices,
        .order = arrival};
  };
  return std::make_shared<ExpertPlan>(ExpertPlan{
      .own = std::move(own),
      .offsets = w.offsets,
      .tokens = way({.there = w.tokens_there, .back = {}, .from = ids.rows(), .to = total(sent)}),
      .choices = way({.there = w.choices_there,
                      .back = w.choices_back,
                      .from = ids.elements(),
                      .to = total(sent)}),
      .sums = {}});
}

}  // namespace

void check_fixed_rows(int64_t rows, int64_t f, int64_t expert) {
  if (f == 0 || rows <= f) return;
  fail(cat("[expert_plan] expert ", expert, " gets ", rows, " rows of one rank, more than the ", f,
           " that are fixed: raise the fixed rows or lower the layer's capacity"));
}

int64_t ExpertGroup::sources() const {
  return ranks->size() * (slices == nullptr ? 1 : slices->size());
}

Tensor gather_counts(Stream& stream, const ExpertGroup& group, const Tensor& counts) {
  if (group.slices == nullptr) return counts;
  const int64_t slices = group.slices->size(), each = counts.elements();
  const Tensor all = row_numbers(stream, slices * each);
  group.slices->all_gather(view_of(std::span<const int32_t>(counts.span<int32_t>())),
                           std::vector<int64_t>(static_cast<size_t>(slices), each),
                           buffer_of(all.span<int32_t>()), stream);
  stream.run([counts, all] {});  // read by the ranks
  return all;
}

void validate(const ExpertGroup& g) {
  std::string reasons;
  auto complain = [&reasons](const std::string& text) { reasons += cat("\n  ", text); };
  if (g.ranks == nullptr) fail_usage("an expert group has no ranks");
  const int ranks = g.ranks->size();
  if (g.experts < 1 || g.experts % ranks != 0) {
    complain(cat(g.experts, " experts cannot be shared out evenly among ", ranks,
                 " ranks: the ranks must divide the experts"));
  }
  if ((g.across == nullptr) != (g.inside == nullptr)) {
    complain("nodes need both communicators, across and inside");
  } else if (g.across != nullptr) {
    if (g.across->size() * g.inside->size() != ranks) {
      complain(cat(g.across->size(), " nodes of ", g.inside->size(), " ranks are not the ", ranks,
                   " ranks of the group"));
    } else if (g.across->rank() * g.inside->size() + g.inside->rank() != g.ranks->rank()) {
      complain(cat("rank ", g.ranks->rank(), " is rank ", g.inside->rank(), " of node ",
                   g.across->rank(), ": ranks of a node must be consecutive"));
    }
  } else if (g.sum_in_nodes) {
    complain("sums in nodes need nodes");
  }
  if (g.fixed_rows < 0) complain(cat("fixed rows are ", g.fixed_rows, " but must not be negative"));
  if (!reasons.empty()) fail_usage(cat("the experts' ranks do not fit:", reasons));
}

std::shared_ptr<const ExpertPlan> plan_experts(Stream& stream, const ExpertGroup& group,
                                               const Tensor& ids, int64_t most_rows) {
  DispatchLayout own = lay_out_dispatch(stream, {.experts = group.experts}, ids);
  // All that an expert takes may be this rank's, but a token goes to an expert once.
  const int64_t of_capacity = std::min(most_rows, ids.rows());
  const int64_t fixed = group.rows_of_capacity ? of_capacity : group.fixed_rows;
  const int64_t rows = most_rows > 0 ? fixed : 0;
  return group.across != nullptr ? plan_nodes(stream, group, ids, std::move(own), rows)
                                 : plan_flat(stream, group, ids, std::move(own), rows);
}

}  // namespace shoestring
