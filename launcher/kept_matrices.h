#pragma once
// precision.keep_bf16 names matrices by parts of their names: a misspelt part would keep none, and
// nobody would see it.

#include "core/fields.h"
#include "core/fp8/recipe.h"
#include "core/model/config.h"

namespace shoestring {

// Complains of every part that stands in no name of a matrix that FP8 could multiply, of this model
// or of another family (the preset's list serves them all), and names the nearest one that does.
void check_kept_matrices(const PrecisionConfig& precision, const ModelConfig& model,
                         Complaints& complaints);

}  // namespace shoestring
