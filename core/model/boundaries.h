#pragma once
// Where tensor and sequence parallelism stand in a model (core/seams.h); all null on one rank. With
// it the residual stream, the norms and the router have this rank's rows [T / t, d] of a
// micro-batch; attention, the mlps' products and the head see all rows and this rank's heads,
// columns and part of the vocabulary.

#include "core/ops/vocabulary_shard.h"
#include "core/seams.h"

namespace shoestring {

struct Boundaries {
  Boundary* gather = nullptr;  // this rank's rows -> all; the gradient is summed and cut
  Boundary* scatter =
      nullptr;  // parts of a sum -> this rank's rows of it; the gradient is gathered
  // Of what every rank then computes alike (the router's choice): this rank's rows -> all, of whose
  // gradient this rank's rows are its own; and all rows -> this rank's.
  Boundary* gather_alike = nullptr;
  Boundary* keep = nullptr;
  const VocabularyShard* vocabulary = nullptr;
};

}  // namespace shoestring
