#pragma once
// Rows of the embedding table, whole or a rank's part of it.

#include "core/layers/context.h"
#include "core/ops/vocabulary_shard.h"

namespace shoestring {

struct EmbeddingLayer {
  const Param* table = nullptr;  // [V, d], or this rank's rows of it
  double multiplier = 1;
  const VocabularyShard* vocabulary = nullptr;  // where it is a part
  Boundary* out = nullptr;                      // adds the parts up

  Value run(LayerContext& context, const Tensor& tokens) const;  // i32 [T] -> [T, d]
};

}  // namespace shoestring
