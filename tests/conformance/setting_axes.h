#pragma once
// The settings of a step that may be combined: what each changes.

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/text.h"
#include "parallel/covering_array.h"
#include "tests/conformance/step_case.h"

namespace shoestring {

// So tight that tokens are dropped in every micro-batch (CapacityDropsRows).
constexpr double tight_capacity = 0.8;

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
      sizes("etp", {1, 2, 4}, &MeshConfig::etp),
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
      switches("documents", [](SettledCase& c) { c.step.documents = true; }),
      switches("uneven", [](SettledCase& c) { c.uneven = true; }),
      switches("exact", [](SettledCase& c) { c.step.exact = true; }),
      switches("nodes", [](SettledCase& c) { c.nodes = true; }),
      values<std::string>(
          "order",
          {{"tp inside", MeshConfig{}.order}, {"pp inside", "pp-dp_replicate-tp-dp_shard-cp"}},
          [](SettledCase& c, const std::string& order) { c.step.part.mesh.order = order; }),
      switches("tensor_chunks", [](SettledCase& c) { c.step.part.tensor_chunks = 3; }),
      switches("overlap", [](SettledCase& c) { c.step.part.overlap = true; }),
      switches("capacity", [](SettledCase& c) { c.step.model.moe.capacity = tight_capacity; }),
      switches("fixed_rows", [](SettledCase& c) { c.step.part.fixed_rows = true; }),
      switches("sum_in_nodes", [](SettledCase& c) { c.step.part.sum_in_nodes = true; }),
      switches("offload_optimizer", [](SettledCase& c) { c.step.offload_optimizer = true; }),
      switches("offload_activations", [](SettledCase& c) { c.step.offload_activations = true; }),
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

}  // namespace shoestring
