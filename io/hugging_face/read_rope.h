#pragma once
// Rotary positions of a config.json, by the rules of transformers 5 for both conventions.

#include "core/ops/rope.h"
#include "io/hugging_face/config_keys.h"

namespace shoestring {

// `rope_scaling` that is not null replaces `rope_parameters`; of those, `rope_theta` wins over the
// one at the top. `theta` is the family's default, `max_positions` that of the file, from which a
// missing first length follows, or yarn's missing factor; of the two one must be there.
RopeConfig read_rope(const ConfigKeys& keys, double theta, int64_t max_positions);

}  // namespace shoestring
