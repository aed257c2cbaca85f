#pragma once
// The small JSON files of an exported folder.

#include <string>
#include <string_view>

#include "io/hugging_face/config.h"

namespace shoestring {

// The text of config.json, with the keys of transformers 4 and of transformers 5: the older ones
// read a rope_theta without rope_parameters as 10000 and tell nobody. With `blocks`, matrices are
// described as FP8.
std::string hugging_face_config_text(const HuggingFaceConfig& config);

// The text of generation_config.json: the JSON object `defaults`, if there is one, with the
// config's ids in place of its own; ids that the config does not know stay.
std::string generation_config_text(const HuggingFaceConfig& config, std::string_view defaults = {});

}  // namespace shoestring
