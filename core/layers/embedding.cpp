#include "core/layers/embedding.h"

#include "core/ops/embedding.h"

namespace shoestring {

Value EmbeddingLayer::run(LayerContext& context, const Tensor& tokens) const {
  Embedding::Attributes attributes{.multiplier = multiplier};
  if (vocabulary) {
    attributes.first = vocabulary->first();
    attributes.vocabulary = vocabulary->vocabulary();
  }
  const Value x = apply<Embedding>(context.tape, attributes, {Value(tokens)}, {table});
  return out ? out->cross(context.tape, x) : x;
}

}  // namespace shoestring
