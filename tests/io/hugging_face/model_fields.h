#pragma once
// The fields of a model's config as text, to compare two of them whole.

#include <string>

#include "core/model/config.h"
#include "io/hugging_face/config.h"
#include "nlohmann/json.hpp"

namespace shoestring {

struct FieldTexts {
  nlohmann::json fields;
  template <class T>
  void operator()(std::string_view name, T& value, const Field&) {
    if constexpr (Section<T>) {
      FieldTexts inner;
      value.visit(inner);
      fields[std::string(name)] = inner.fields;
    } else {
      fields[std::string(name)] = value;
    }
  }
};

// Of two models that a config.json cannot tell apart, the same text: all that the family's folders
// carry, and nothing of parts that are off.
inline std::string carried_fields(ModelConfig model) {
  const RopeConfig rope = model.rope;
  model.head_dim = model.mla.on() ? 0 : model.dim_of_head();
  if (model.mla.on()) model.kv_heads = model.heads;
  if (model.mla.on() ? !has_sparse_layers(model) : !model.moe.on()) model.moe = {};
  if (model.moe.groups_chosen == model.moe.groups) model.moe.groups = model.moe.groups_chosen = 1;
  if (rope.scaling == "none") model.rope = {.theta = rope.theta};
  if (rope.scaling == "linear") {
    model.rope = {.theta = rope.theta, .scaling = rope.scaling, .factor = rope.factor};
  }
  FieldTexts texts;
  model.visit(texts);
  return texts.fields.dump(1);
}

}  // namespace shoestring
