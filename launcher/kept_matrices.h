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

// Whether the recipe leaves FP8 any matrix of the model's blocks (prediction modules apart).
bool any_block_in_fp8(const PrecisionConfig& precision, const ModelConfig& model);
// Whether `part` stands in the name of a matrix of this model that FP8 would multiply without
// keep_bf16.
bool keeps_a_matrix(const std::string& part, const PrecisionConfig& precision,
                    const ModelConfig& model);
// Routers stay as they are, listed or not.
bool is_part_of_router(const std::string& part);

}  // namespace shoestring
