#pragma once
// The small JSON files of an exported folder.

#include <string>

#include "io/hugging_face/config.h"

namespace shoestring {

// The text of config.json, with the keys of transformers 4 and of transformers 5: the older ones
// read a rope_theta without rope_parameters as 10000 and tell nobody. With `blocks`, matrices are
// described as FP8.
std::string hugging_face_config_text(const HuggingFaceConfig& config);

// The text of generation_config.json.
std::string generation_config_text(const HuggingFaceConfig& config);

}  // namespace shoestring
