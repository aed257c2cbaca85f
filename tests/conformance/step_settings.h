#pragma once
// The settings of a step that may be combined, and which combinations there are: one table, from
// which covering arrays are made.
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "parallel/covering_array.h"
#include "tests/conformance/step_case.h"

namespace shoestring {

// A case before its ranks are counted; `none` stands for settings that need an axis.
struct SettledCase {
  MeshCase step;
  bool scheduled = false, context = false, uneven = false, nodes = false;
};
using Change = std::function<void(SettledCase&)>;

struct SettingAxis {
  std::string name;
  std::vector<std::pair<std::string, Change>> settings;
};

inline SettingAxis sizes(const std::string& name, const std::vector<int64_t>& sizes,
                         int64_t MeshConfig::*axis) {
  SettingAxis a{name, {}};
  for (const int64_t n : sizes) {
    a.settings.emplace_back(cat(n), [=](SettledCase& c) { c.step.part.mesh.*axis = n; });
  }
  return a;
}

template <class T>
SettingAxis values(const std::string& name, const std::vector<std::pair<std::string, T>>& values,
                   const std::function<void(SettledCase&, const T&)>& set) {
  SettingAxis a{name, {}};
  for (const auto& [text, value] : values) {
    a.settings.emplace_back(text, [set, v = value](SettledCase& c) { set(c, v); });
  }
  return a;
}
inline SettingAxis switches(const std::string& name, const std::function<void(SettledCase&)>& on) {
  return {name, {{"no", [](SettledCase&) {}}, {"yes", on}}};
}

inline SettingAxis schedules() {
  SettingAxis a{"schedule", {{"none", [](SettledCase&) {}}}};
  const auto add = [&](const std::string& text, const std::string& name, int chunks) {
    a.settings.emplace_back(text, [=](SettledCase& c) {
      c.scheduled = true;
      c.step.part.schedule = name;
      c.step.part.chunks = chunks;
    });
  };
  for (const ScheduleEntry& entry : schedule_entries()) add(entry.name, entry.name, 0);
  add("interleaved-1f1b by 3", "interleaved-1f1b", 3);
  return a;
}

// A setting more is a line more. Changes are made in this order.
inline std::vector<SettingAxis> setting_axes() {
  const auto context = [](SettledCase& c, ContextKind kind) {
    c.context = true, c.step.part.context = kind;
  };
  return {
      sizes("tp", {1, 2, 4}, &MeshConfig::tp),
      sizes("cp", {1, 2, 4}, &MeshConfig::cp),
      sizes("ep", {1, 2, 4}, &MeshConfig::ep),
      sizes("pp", {1, 2, 3, 4}, &MeshConfig::pp),
      sizes("dp", {1, 2, 3, 4}, &MeshConfig::dp_shard),
      sizes("copies", {1, 2}, &MeshConfig::dp_replicate),
      values<std::string>(
          "model",
          {{"llama", "llama"},
           {"qwen3", "qwen3"},
           {"mixtral", "mixtral"},
           {"deepseek-v3", "deepseek-v3"}},
          [](SettledCase& c, const std::string& m) { c.step.model = step_model(m); }),
      schedules(),
      {"context",
       {{"none", [](SettledCase&) {}},
        {"ring", [=](SettledCase& c) { context(c, ContextKind::ring); }},
        {"all_to_all", [=](SettledCase& c) { context(c, ContextKind::all_to_all); }}}},
      values<int64_t>("zero", {{"0", 0}, {"1", 1}, {"2", 2}, {"3", 3}},
                      [](SettledCase& c, int64_t stage) { c.step.zero_stage = stage; }),
      values<Recompute>("recompute",
                        {{"none", Recompute::none},
                         {"swiglu", Recompute::swiglu},
                         {"norms", Recompute::norms},
                         {"attention", Recompute::attention},
                         {"block", Recompute::block}},
                        [](SettledCase& c, Recompute policy) { c.step.recompute = policy; }),
      {"precision",
       {{"f32", [](SettledCase& c) { set_precision(c.step, Dtype::f32); }},
        {"bf16", [](SettledCase& c) { set_precision(c.step, Dtype::bf16); }},
        {"fp8", [](SettledCase& c) { set_precision(c.step, Dtype::bf16, "deepseek_v3"); }}}},
      values<std::pair<double, bool>>(
          "capacity",
          {{"none", {0, false}}, {"exact rows", {0.8, false}}, {"fixed rows", {0.8, true}}},
          [](SettledCase& c, const std::pair<double, bool>& v) {
            std::tie(c.step.model.moe.capacity, c.step.part.fixed_rows) = v;
          }),
      switches("documents", [](SettledCase& c) { c.step.documents = true; }),
      switches("uneven", [](SettledCase& c) { c.uneven = true; }),
      switches("exact", [](SettledCase& c) { c.step.exact = true; }),
      switches("nodes", [](SettledCase& c) { c.nodes = true; }),
      values<std::string>(
          "order",
          {{"tp inside", MeshConfig{}.order}, {"pp inside", "pp-dp_replicate-tp-dp_shard-cp"}},
          [](SettledCase& c, const std::string& order) { c.step.part.mesh.order = order; }),
  };
}

inline std::vector<Factor> factors_of(const std::vector<SettingAxis>& axes) {
  std::vector<Factor> factors;
  for (const SettingAxis& axis : axes) {
    Factor& f = factors.emplace_back(Factor{axis.name, {}});
    for (const auto& [text, change] : axis.settings) f.settings.push_back(text);
  }
  return factors;
}

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
      {{"model", "capacity"},
       [](auto& c) { return c.step.model.moe.capacity == 0 || c.step.model.moe.on(); }},
      {{"ep", "nodes", "capacity"},
       [](auto& c) { return !c.step.part.fixed_rows || (c.step.part.mesh.ep > 1 && !c.nodes); }},
      {{"tp", "cp", "ep", "dp", "copies"},
       [](auto& c) {
         const MeshConfig& m = c.step.part.mesh;
         return m.stage_ranks() % m.ep == 0;
       }},
      {{"pp", "schedule", "dp", "copies"}, fits},
      {{"tp", "cp", "pp", "dp", "copies", "nodes"},
       [](auto& c) { return !c.nodes || (c.step.ranks > 1 && c.step.ranks % 2 == 0); }},
      {{"tp", "cp", "ep", "pp", "dp", "copies", "model", "schedule", "context", "nodes"}, fits},
  };
};

}  // namespace shoestring
