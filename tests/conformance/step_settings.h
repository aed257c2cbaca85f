#pragma once
// Which settings of a step may be combined: the rules, from which covering arrays are made. What
// the product refuses by its config it is asked itself (tests/conformance/product_rules.h).

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/conformance/product_rules.h"
#include "tests/conformance/setting_axes.h"

namespace shoestring {

// The stages of a schedule, the first of them with a layer less and the last with one more.
inline std::vector<int64_t> uneven_split(const ModelConfig& model, int stages) {
  std::vector<int64_t> blocks = even_split(model, stages);
  if (stages < 2 || blocks.front() < 2) return {};
  --blocks.front();
  ++blocks.back();
  return blocks;
}

class StepSettings {
 public:
  explicit StepSettings(int most_ranks) : most_ranks_(most_ranks) {
    for (const char* name : {"tp", "cp", "pp", "dp", "copies"}) {
      AxisSizes& axis = rank_axes_.emplace_back(AxisSizes{factor(name), {}});
      for (const std::string& n : factors_[axis.factor].settings)
        axis.sizes.push_back(std::stoll(n));
    }
    for (Rule& rule : rules_) {
      size_t combinations = 1;
      for (const std::string& name : rule.of) {
        rule.factors.push_back(factor(name));
        combinations *= factors_[rule.factors.back()].settings.size();
      }
      rule.answers.resize(combinations);
    }
  }

  const std::vector<Factor>& factors() const { return factors_; }

  // May a row, which may have unset factors, be used? Every rule is asked when what it looks at is
  // set, once.
  bool legal(const SettingRow& row) {
    int64_t ranks = 1;
    for (const auto& [f, sizes] : rank_axes_) {
      if (row[f] != unset) ranks *= sizes[static_cast<size_t>(row[f])];
    }
    return ranks <= most_ranks_ &&
           std::ranges::all_of(rules_, [&](Rule& rule) { return keeps(row, rule); });
  }
  MeshCase case_of(const SettingRow& row) const { return settled(row).step; }

 private:
  struct AxisSizes {
    size_t factor = 0;
    std::vector<int64_t> sizes;
  };
  enum class Answer : uint8_t { unknown, no, yes };
  struct Rule {
    std::vector<std::string> of;  // factors; the others stand as if unset
    std::function<bool(const SettledCase&)> holds;
    std::vector<size_t> factors = {};
    std::vector<Answer> answers = {};  // by the settings of these
  };
  bool keeps(const SettingRow& row, Rule& rule) const {
    size_t place = 0;
    for (const size_t f : rule.factors) {
      if (row[f] == unset) return true;
      place = place * factors_[f].settings.size() + static_cast<size_t>(row[f]);
    }
    Answer& answer = rule.answers[place];
    if (answer == Answer::unknown) {
      SettingRow part(row.size(), unset);
      for (const size_t f : rule.factors) part[f] = row[f];
      answer = rule.holds(settled(part)) ? Answer::yes : Answer::no;
    }
    return answer == Answer::yes;
  }
  size_t factor(const std::string& name) const {
    const auto found = std::ranges::find(factors_, name, &Factor::name);
    check(found != factors_.end(), cat("no factor is called ", name));
    return static_cast<size_t>(found - factors_.begin());
  }
  SettledCase settled(const SettingRow& row) const {
    SettledCase c;
    c.step.model = step_model("llama");
    c.step.micros = 24;
    c.step.documents = false;
    c.step.part.mesh.dp_shard = 1;
    for (size_t f = 0; f < row.size(); ++f) {
      if (row[f] != unset) axes_[f].settings[static_cast<size_t>(row[f])].second(c);
    }
    MeshConfig& mesh = c.step.part.mesh;
    c.step.ranks = static_cast<int>(mesh.named_ranks());
    if (c.nodes) mesh.ranks_per_node = std::max(1, c.step.ranks / 2);
    if (c.uneven) c.step.part.blocks = uneven_split(c.step.model, stages_of(c));
    return c;
  }
  static int stages_of(const SettledCase& c) {
    ScheduleRequest order{.name = c.step.part.schedule,
                          .ranks = static_cast<int>(c.step.part.mesh.pp)};
    if (c.step.part.chunks > 0) order.chunks = c.step.part.chunks;
    const int stages = placement_of(order).stages();
    return stages <= c.step.model.layers ? stages : 1;
  }
  static bool fits(const SettledCase& c) { return is_legal(question_of(c.step)); }
  static std::function<bool(const SettledCase&)> allowed(const std::string& key) {
    return [key](const SettledCase& c) { return product_allows(c.step, key); };
  }

  int most_ranks_;
  std::vector<SettingAxis> axes_ = setting_axes();
  std::vector<Factor> factors_ = factors_of(axes_);
  std::vector<AxisSizes> rank_axes_;
  std::vector<Rule> rules_ = {
      {{"pp", "schedule"}, [](auto& c) { return c.scheduled == (c.step.part.mesh.pp > 1); }},
      {{"cp", "context"}, [](auto& c) { return c.context == (c.step.part.mesh.cp > 1); }},
      {{"pp", "schedule"}, fits},
      {{"tp", "model"}, fits},
      {{"tp", "cp", "context", "model"}, fits},
      {{"pp", "schedule", "uneven"},
       [](auto& c) { return !c.uneven || !c.step.part.blocks.empty(); }},
      {{"ep", "model"}, [](auto& c) { return c.step.part.mesh.ep == 1 || c.step.model.moe.on(); }},
      {{"etp", "model"},
       [](auto& c) { return c.step.part.mesh.etp == 1 || c.step.model.moe.on(); }},
      {{"tp", "cp", "ep", "etp", "dp", "copies"},
       [](auto& c) {
         const MeshConfig& m = c.step.part.mesh;
         return m.stage_ranks() % (m.ep * m.etp) == 0;
       }},
      {{"pp", "schedule", "dp", "copies"}, fits},
      {{"tp", "cp", "pp", "dp", "copies", "nodes"},
       [](auto& c) { return !c.nodes || (c.step.ranks > 1 && c.step.ranks % 2 == 0); }},
      {{"tp", "cp", "ep", "etp", "pp", "dp", "copies", "model", "schedule", "context", "nodes"},
       fits},
      {{"capacity", "model"},
       [](auto& c) { return c.step.model.moe.capacity == 0 || c.step.model.moe.on(); }},
      {{"pp", "ep", "etp", "schedule", "overlap"}, allowed("pipeline.overlap")},
      {{"ep", "etp", "capacity", "fixed_rows"}, allowed("parallel.expert_rows")},
      {{"ep", "nodes", "exact", "sum_in_nodes"}, allowed("parallel.sum_in_nodes")},
      {{"tp", "cp", "ep", "etp", "pp", "dp", "copies", "order", "nodes", "sum_in_nodes"},
       [](auto& c) { return product_lays_out(c.step); }},
      {{"zero", "offload_optimizer"}, allowed("offload.optimizer")},
      {{"pp", "offload_activations"}, allowed("offload.activations")},
  };
};

}  // namespace shoestring
