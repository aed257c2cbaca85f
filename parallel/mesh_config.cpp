#include "parallel/mesh_config.h"

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/counted.h"
#include "core/nearest_name.h"
#include "core/text.h"

namespace shoestring {

std::string_view name_of(MeshAxis axis) {
  switch (axis) {
    case MeshAxis::tp:
      return "tp";
    case MeshAxis::cp:
      return "cp";
    case MeshAxis::dp_shard:
      return "dp_shard";
    case MeshAxis::dp_replicate:
      return "dp_replicate";
    case MeshAxis::pp:
      return "pp";
    case MeshAxis::etp:
      return "etp";
    case MeshAxis::ep:
      return "ep";
    case MeshAxis::edp_shard:
      return "edp_shard";
    case MeshAxis::edp_replicate:
      return "edp_replicate";
  }
  fail("an axis that no mesh has");
}

namespace {

std::vector<std::string> words_between(std::string_view text, char separator) {
  std::vector<std::string> words;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string_view::npos; begin = end + 1) {
    words.emplace_back(text.substr(begin, end - begin));
  }
  words.emplace_back(text.substr(begin));
  return words;
}

std::string unknown_axis(const std::string& word) {
  std::vector<std::string> names;
  for (MeshAxis axis : default_order) names.emplace_back(name_of(axis));
  if (word == "ep" || word == "etp") {
    return cat("names ", word, ", which has no place of its own: experts are spread over ",
               "neighbours within the tensor, context and data ranks");
  }
  const std::string near = nearest_name(word, names);
  return cat("names \"", word, "\", which is no axis", near.empty() ? "" : cat(" (", near, "?)"),
             "; the axes are tp, cp, dp_shard, dp_replicate and pp, joined by \"-\"");
}

}  // namespace

ParsedOrder parse_order(std::string_view order) {
  ParsedOrder parsed;
  std::vector<MeshAxis> named;
  for (const std::string& word : words_between(order, '-')) {
    if (order.empty()) break;
    const auto* axis = std::find_if(default_order.begin(), default_order.end(),
                                    [&](MeshAxis a) { return name_of(a) == word; });
    if (axis == default_order.end()) {
      parsed.error = unknown_axis(word);
      return parsed;
    }
    if (std::find(named.begin(), named.end(), *axis) != named.end()) {
      parsed.error = cat("names ", word, " twice");
      return parsed;
    }
    named.push_back(*axis);
  }
  for (MeshAxis axis : default_order) {
    if (std::find(named.begin(), named.end(), axis) == named.end()) named.push_back(axis);
  }
  std::copy(named.begin(), named.end(), parsed.order.begin());
  return parsed;
}

namespace {

// Factors count as at least 1; what is beyond the cap is the cap, so no product overflows.
int64_t capped_product(std::initializer_list<int64_t> factors) {
  constexpr int64_t cap = 1LL << 40;
  int64_t product = 1;
  for (const int64_t f : factors) {
    product = f > cap / product ? cap : product * std::max<int64_t>(f, 1);
  }
  return product;
}

}  // namespace

void MeshConfig::validate(Complaints& c) const {
  const ParsedOrder parsed = parse_order(order);
  if (!parsed.error.empty()) c.add("order", parsed.error);
  const auto at_least = [&](std::string_view key, int64_t value, int64_t least) {
    if (value < least) c.add(key, cat("= ", value, " must be at least ", least));
  };
  at_least("tp", tp, 1);
  at_least("cp", cp, 1);
  at_least("pp", pp, 1);
  at_least("dp_shard", dp_shard, 0);
  at_least("dp_replicate", dp_replicate, 1);
  at_least("ep", ep, 1);
  at_least("etp", etp, 1);
  at_least("ranks_per_node", ranks_per_node, 0);
  std::string_view largest = "tp";
  int64_t most = tp;
  for (const auto& [key, size] : {std::pair<std::string_view, int64_t>("cp", cp),
                                  {"pp", pp},
                                  {"dp_shard", dp_shard},
                                  {"dp_replicate", dp_replicate}}) {
    if (size > most) largest = key, most = size;
  }
  if (named_ranks() > most_ranks) {
    c.add(largest, cat("= ", most, ": tp x cp x dp_shard x dp_replicate x pp asks for ",
                       most > most_ranks ? "" : cat(named_ranks(), " ranks, "), "more than the ",
                       most_ranks, " ranks that a run may have"));
  }
  for (const auto& [key, size] : {std::pair<std::string_view, int64_t>("ep", ep), {"etp", etp}}) {
    if (size <= most_ranks) continue;
    c.add(key, cat("= ", size, " is more than the ", most_ranks, " ranks that a run may have"));
  }
}

bool MeshConfig::positive() const {
  return std::min({tp, cp, pp, dp_replicate, ep, etp}) >= 1 &&
         std::min(dp_shard, ranks_per_node) >= 0 &&
         std::max({tp, cp, pp, dp_replicate, dp_shard, ep, etp}) <= most_ranks;
}

bool MeshConfig::makes(int64_t ranks, Complaints* complaints) const {
  Complaints found;
  validate(found);
  bool holds = found.items().empty();
  if (complaints) {
    for (const auto& [key, message] : found.items()) complaints->add(key, message);
  }
  if (!positive()) return false;
  const auto need = [&](bool ok, std::string_view key, const auto& message) {
    holds = holds && ok;
    if (!ok && complaints) complaints->add(key, message());
  };
  const MeshConfig mesh = resolved(ranks);
  const int64_t product = mesh.named_ranks(), experts = capped_product({ep, etp});
  need(mesh.dp_shard > 0 && product == ranks, "dp_shard", [&] {
    const std::string shard = dp_shard == 0 ? "" : cat(" x dp_shard ", dp_shard);
    const std::string axes = cat("tp ", tp, " x cp ", cp, shard, " x dp_replicate ", dp_replicate,
                                 " x pp ", pp, " = ", product);
    return dp_shard == 0 ? cat("= 0 takes what the other axes leave, but ", axes,
                               " does not divide the ", counted(ranks, "rank"))
                         : cat("does not fit: ", axes, ", but there ", ranks == 1 ? "is " : "are ",
                               counted(ranks, "rank"));
  });
  need(mesh.dp_shard == 0 || mesh.stage_ranks() % experts == 0, "ep", [&] {
    return cat("x etp = ", experts, " does not divide the ", counted(mesh.stage_ranks(), "rank"),
               " of a pipeline stage (tp x cp x dp_shard x dp_replicate)");
  });
  need(ranks_per_node == 0 || ranks <= ranks_per_node || ranks % ranks_per_node == 0,
       "ranks_per_node",
       [&] { return cat("= ", ranks_per_node, " does not divide the ", ranks, " ranks"); });
  return holds;
}

int64_t MeshConfig::named_ranks() const {
  return capped_product({tp, cp, pp, dp_replicate, dp_shard});
}

int64_t MeshConfig::stage_ranks() const { return capped_product({tp, cp, dp_replicate, dp_shard}); }

MeshConfig MeshConfig::resolved(int64_t ranks) const {
  MeshConfig config = *this;
  if (dp_shard == 0 && ranks % named_ranks() == 0) config.dp_shard = ranks / named_ranks();
  return config;
}

}  // namespace shoestring
