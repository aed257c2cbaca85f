#pragma once
// Which published family computes exactly what a model of ours computes.

#include <string>

#include "io/hugging_face/config.h"

namespace shoestring {

// Usage error that names the config keys when there is none: nobody could load such a folder and
// get the same numbers.
ModelFamily family_of(const ModelConfig& model);

}  // namespace shoestring
