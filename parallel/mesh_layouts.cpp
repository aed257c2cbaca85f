#include "parallel/mesh_layouts.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <tuple>
#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "parallel/layout_advice.h"
#include "parallel/mesh.h"

namespace shoestring {
namespace {

// Goes through the rules. Without complaints it only finds out whether all hold, and builds no
// text: a search asks about many thousands of layouts.
class Rules {
 public:
  Rules(const LayoutQuestion& question, std::vector<LayoutComplaint>* complaints)
      : asked_(question.config),
        mesh_(asked_.resolved(question.ranks)),
        ranks_(question.ranks),
        model_(question.model),
        data_key_(question.data_key),
        complaints_(complaints) {}

  bool hold() {
    axes();
    if (!asked_.positive()) return false;
    attention();
    widths();
    sequence();
    experts();
    pipeline();
    micro_batches();
    if (held_) nodes();
    return held_;
  }

 private:
  using Keys = std::initializer_list<std::string_view>;
  // `message`: a function, called when it is needed; `with`: empty keys are none.
  template <class F>
  void need(bool ok, std::string_view key, const F& message, Keys with) {
    if (ok) return;
    held_ = false;
    if (!complaints_) return;
    LayoutComplaint& complaint = complaints_->emplace_back();
    complaint.key = key, complaint.message = message();
    for (const std::string_view other : with) {
      if (!other.empty()) complaint.with.emplace_back(other);
    }
  }
  static bool divides(int64_t a, int64_t b) { return b % a == 0; }
  // "= 3 does not divide the 16 query heads".
  void need_divisor(std::string_view key, int64_t size, int64_t of, std::string_view what,
                    Keys with) {
    need(
        divides(size, of), key,
        [&] { return cat("= ", size, " does not divide the ", of, " ", what); }, with);
  }

  void axes() {
    Complaints found;
    held_ = asked_.makes(ranks_, complaints_ ? &found : nullptr);
    for (const auto& [key, message] : found.items()) {
      need(false, key, [&] { return message; }, {data_key_});
    }
  }

  void attention() {
    const int64_t tp = mesh_.tp, cp = mesh_.cp, kv = model_.kv_heads;
    need_divisor("tp", tp, model_.heads, "query heads", {"model.heads"});
    for (const auto& [key, size] : {std::pair("tp", tp), std::pair("etp", mesh_.etp)}) {
      const auto text = [size = size] {
        return cat("= ", size, " cuts matrices, which Muon orthogonalises whole; use pp, ep or ",
                   "dp_shard instead, or optim.optimizer = \"adamw\"");
      };
      need(!model_.whole_matrices || size == 1, key, text, {"optim.optimizer"});
    }
    const auto unshared = [&] {
      return cat("= ", tp, " neither divides the ", counted(kv, "key-value head"),
                 " nor is a multiple of them");
    };
    need(kv == 0 || divides(tp, kv) || divides(kv, tp), "tp", unshared, {"model.kv_heads"});
    if (model_.context == ContextKind::ring || cp == 1) return;
    const auto heads = [&] {
      return cat("x tp = ", tp * cp, " does not divide the ", model_.heads,
                 " query heads, which all-to-all context parallelism shares out");
    };
    need(divides(tp * cp, model_.heads), "cp", heads, {"model.heads", "parallel.context"});
    // Of one tensor rank: whole ones, or one that several ranks hold.
    const int64_t own = std::max<int64_t>(kv / tp, 1);
    const auto kv_heads = [&] {
      return cat("= ", cp, " neither divides the ", counted(own, "key-value head"),
                 " of a tensor rank nor is a multiple of them");
    };
    need(kv == 0 || divides(cp, own) || divides(own, cp), "cp", kv_heads,
         {"mesh.tp", "model.kv_heads", "parallel.context"});
  }

  void widths() {
    const int64_t tp = mesh_.tp;
    need_divisor("tp", tp, model_.ffn, "columns of the mlp", {"model.ffn"});
    need_divisor("tp", tp, model_.shared_ffn, "columns of the shared experts",
                 {"model.moe.shared", "model.moe.ffn"});
    const auto rows = [&] {
      return cat("= ", tp, " is more than the ", counted(model_.vocabulary, "row"),
                 " of the vocabulary");
    };
    need(model_.vocabulary == 0 || tp <= model_.vocabulary, "tp", rows, {"model.vocabulary"});
  }

  // Zigzag: each context rank holds one early and one late piece of each sequence, and tensor ranks
  // cut every piece once more.
  void sequence() {
    const bool ring = model_.context == ContextKind::ring && mesh_.cp > 1;
    const int64_t pieces = (ring ? 2 : 1) * mesh_.cp * mesh_.tp;
    const auto text = [&] {
      if (mesh_.cp == 1) {
        return cat("= ", pieces, " does not divide the ", counted(model_.sequence, "token"),
                   " of a sequence");
      }
      return cat("= ", mesh_.cp, " cuts sequences into ", ring ? "2 x cp" : "cp",
                 mesh_.tp > 1 ? " x tp" : "", " = ", pieces, " pieces, which ",
                 counted(model_.sequence, "token"), " do not divide into");
    };
    need(divides(pieces, model_.sequence), mesh_.cp > 1 ? "cp" : "tp", text,
         {"train.sequence_length"});
  }

  void experts() {
    const int64_t ep = mesh_.ep, etp = mesh_.etp;
    if (model_.experts == 0) {
      for (const auto& [key, size] : {std::pair("ep", ep), std::pair("etp", etp)}) {
        const auto text = [size = size] {
          return cat("= ", size, ", but the model has no experts");
        };
        need(size == 1, key, text, {"model.moe.experts"});
      }
      return;
    }
    need_divisor("ep", ep, model_.experts, "experts", {"model.moe.experts"});
    need_divisor("etp", etp, model_.expert_ffn, "columns of an expert", {"model.moe.ffn"});
  }

  void pipeline() {
    if (mesh_.pp == 1) return;
    const ScheduleNeeds& schedule = model_.schedule;
    const int64_t stages = mesh_.pp * schedule.stages_per_rank;
    const auto many = [&] {
      return cat("= ", mesh_.pp, " with ", schedule.name, " cuts the model into ", stages,
                 " stages, but it has layers for ", model_.layers);
    };
    need(stages <= model_.layers, "pp", many,
         {"pipeline.schedule", "pipeline.chunks", "pipeline.layers", "model.layers"});
    const auto odd = [&] { return cat("= ", mesh_.pp, " must be even for ", schedule.name); };
    need(!schedule.even_ranks || mesh_.pp % 2 == 0, "pp", odd, {"pipeline.schedule"});
  }

  void micro_batches() {
    if (mesh_.dp_shard == 0) return;
    const int64_t dp = mesh_.dp(), all = model_.micro_batches;
    const bool pipelined = mesh_.pp > 1, routed = mesh_.ep * mesh_.etp > 1;
    const bool equal = model_.equal_batches || pipelined || routed;
    const auto uneven = [&] {
      return cat("x dp_replicate = ", dp, " does not divide the ",
                 counted(all, "micro-batch", "micro-batches"),
                 " of a step, of which every data rank must take as many");
    };
    need(!equal || divides(dp, all), "dp_shard", uneven,
         {data_key_, "train.batch", "train.micro_batch",
          pipelined || routed ? "" : "parallel.zero_stage"});
    if (!pipelined || !divides(dp, all)) return;
    const ScheduleNeeds& schedule = model_.schedule;
    const int64_t own = all / dp;
    const int64_t least = std::max(schedule.min_micro_batches, schedule.min_per_rank * mesh_.pp);
    const int64_t multiple = std::max<int64_t>(schedule.multiple, 1) *
                             std::max<int64_t>(schedule.multiple_per_rank * mesh_.pp, 1);
    const auto need_own = [&](bool ok, std::string_view what, int64_t needed) {
      const auto text = [&] {
        return cat("= ", mesh_.pp, " with ", schedule.name, " needs ", what, needed,
                   " micro-batches on each data rank, but there ", own == 1 ? "is " : "are ", own,
                   " (", all, " in a step, ", counted(dp, "data rank"), ")");
      };
      need(ok, "pp", text,
           {"pipeline.schedule", "train.batch", "train.micro_batch", data_key_, "mesh.dp_shard",
            "mesh.dp_replicate"});
    };
    need_own(own >= least, "at least ", least);
    need_own(divides(multiple, own), "a multiple of ", multiple);
  }

  void nodes() {
    if (!model_.two_level_exchange || mesh_.ep == 1 || mesh_.ranks_per_node == 0) return;
    const Keys placing = {"mesh.ranks_per_node", "mesh.order"};
    const NodeShape shape = Mesh(mesh_, static_cast<int>(ranks_)).node_shape(MeshGroup::ep);
    const auto uneven = [&] {
      return cat("= ", mesh_.ep, " ranks are not spread evenly over nodes of ",
                 mesh_.ranks_per_node, ", which the two-level exchange needs");
    };
    need(shape.even, "ep", uneven, placing);
    const auto apart = [&] {
      return cat("= ", mesh_.ep, " ranks of a node do not follow one another, which the two-level ",
                 "exchange needs: mesh.order puts others between them");
    };
    need(!shape.even || shape.together, "ep", apart, placing);
    const auto groups = [&] {
      return cat("= ", mesh_.ep, " spans ", shape.nodes, " nodes, which do not divide the ",
                 counted(model_.groups, "group"), " of experts that the two-level exchange keeps ",
                 "together");
    };
    need(divides(shape.nodes, model_.groups), "ep", groups,
         {"mesh.ranks_per_node", "model.moe.groups"});
  }

  const MeshConfig& asked_;
  MeshConfig mesh_;  // with dp_shard filled in, where the ranks allow it
  int64_t ranks_;
  const ModelFacts& model_;
  const std::string& data_key_;
  std::vector<LayoutComplaint>* complaints_;
  bool held_ = true;
};

std::vector<int64_t> divisors_of(int64_t n) {
  std::vector<int64_t> divisors;
  for (int64_t d = 1; d <= n; ++d) {
    if (n % d == 0) divisors.push_back(d);
  }
  return divisors;
}

// Every way to write the ranks as a product of the axes, experts included.
template <class F>
void each_factorisation(const LayoutQuestion& question, const F& visit) {
  MeshConfig mesh = question.config;
  const std::vector<int64_t> divisors = divisors_of(question.ranks);
  const auto each_divisor = [&](int64_t of, int64_t& axis, const auto& inner) {
    for (int64_t d : divisors) {
      if (of % d != 0) continue;
      axis = d;
      inner(of / d);
    }
  };
  each_divisor(question.ranks, mesh.pp, [&](int64_t stage) {
    const int64_t for_experts = question.model.experts == 0 ? 1 : stage;
    each_divisor(stage, mesh.tp, [&](int64_t without_tp) {
      each_divisor(without_tp, mesh.cp, [&](int64_t dp) {
        each_divisor(for_experts, mesh.ep, [&](int64_t without_ep) {
          each_divisor(without_ep, mesh.etp, [&](int64_t) {
            each_divisor(dp, mesh.dp_replicate, [&](int64_t rest) {
              mesh.dp_shard = rest;
              visit(mesh);
            });
          });
        });
      });
    });
  });
}

using Sizes = std::array<int64_t, 7>;
Sizes sizes_of(const MeshConfig& m) {
  return {m.pp, m.tp, m.cp, m.ep, m.etp, m.dp_replicate, m.dp_shard};
}

// The exponential of the distance, as a quotient of integers: equal distances compare equal.
double distance_between(const MeshConfig& asked, const MeshConfig& found) {
  const Sizes a = sizes_of(asked), b = sizes_of(found);
  double larger = 1, smaller = 1;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] < 1) continue;
    larger *= static_cast<double>(std::max(a[i], b[i]));
    smaller *= static_cast<double>(std::min(a[i], b[i]));
  }
  return larger / smaller;
}

}  // namespace

std::vector<LayoutComplaint> check_layout(const LayoutQuestion& question) {
  check(question.ranks > 0, "a layout has at least one rank");
  std::vector<LayoutComplaint> complaints;
  if (Rules(question, &complaints).hold()) return complaints;
  complaints.emplace_back().message = advice_for(question);
  return complaints;
}

void require_layout(const LayoutQuestion& question, const PlaceComplaint& placed) {
  std::string text;
  for (const LayoutComplaint& c : check_layout(question)) {
    append(text, "\n",
           c.key.empty() ? c.message
                         : placed(cat(question.section, ".", c.key, " ", c.message), c.with));
  }
  if (text.empty()) return;
  fail_usage(cat("this layout is not possible:", text));
}

bool is_legal(const LayoutQuestion& question) { return Rules(question, nullptr).hold(); }

std::vector<MeshConfig> legal_layouts(const LayoutQuestion& question) {
  std::vector<MeshConfig> legal;
  LayoutQuestion candidate = question;
  each_factorisation(question, [&](const MeshConfig& mesh) {
    candidate.config = mesh;
    if (is_legal(candidate)) legal.push_back(mesh);
  });
  std::sort(legal.begin(), legal.end(),
            [](const MeshConfig& a, const MeshConfig& b) { return sizes_of(a) < sizes_of(b); });
  return legal;
}

std::vector<MeshConfig> nearest_layouts(const LayoutQuestion& question, size_t count) {
  LayoutQuestion sound = question;
  // A wrong order or node size is no reason to find nothing.
  MeshConfig& config = sound.config;
  if (!parse_order(config.order).error.empty()) config.order = MeshConfig{}.order;
  const int64_t nodes_of = config.ranks_per_node;
  if (nodes_of < 0 || (nodes_of > 0 && sound.ranks > nodes_of && sound.ranks % nodes_of != 0)) {
    config.ranks_per_node = 0;
  }
  std::vector<MeshConfig> layouts = legal_layouts(sound);
  if (config.etp <= 1) std::erase_if(layouts, [](const MeshConfig& m) { return m.etp > 1; });
  std::erase_if(layouts, [&](const MeshConfig& m) { return m.dp() > sound.model.micro_batches; });
  const auto before = [&](const MeshConfig& a, const MeshConfig& b) {
    return std::tuple(distance_between(question.config, a), -a.dp_shard, sizes_of(a)) <
           std::tuple(distance_between(question.config, b), -b.dp_shard, sizes_of(b));
  };
  count = std::min(count, layouts.size());
  std::partial_sort(layouts.begin(), layouts.begin() + static_cast<std::ptrdiff_t>(count),
                    layouts.end(), before);
  layouts.resize(count);
  return layouts;
}

std::string options_text(const MeshConfig& from, const MeshConfig& to, std::string_view section) {
  std::string text;
  const auto add = [&](std::string_view key, const auto& a, const auto& b) {
    if (a == b) return;
    append(text, text.empty() ? "" : " ", "--set ", section, ".", key, "=", b);
  };
  add("tp", from.tp, to.tp);
  add("cp", from.cp, to.cp);
  add("pp", from.pp, to.pp);
  // Zero stays: it takes what is left.
  if (from.dp_shard != 0) add("dp_shard", from.dp_shard, to.dp_shard);
  add("dp_replicate", from.dp_replicate, to.dp_replicate);
  add("ep", from.ep, to.ep);
  add("etp", from.etp, to.etp);
  add("order", from.order, to.order);
  add("ranks_per_node", from.ranks_per_node, to.ranks_per_node);
  return text;
}

}  // namespace shoestring
