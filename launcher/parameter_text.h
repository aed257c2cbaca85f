#pragma once
// How many parameters a model has, for people.

#include <string>

#include "core/model/config.h"

namespace shoestring {

// "3.07 M parameters, 944.93 k of them in 1 prediction module": all that a folder or a run of the
// model holds. Published counts of DeepSeek-V3 leave the modules out.
std::string text_of_parameters(const ModelConfig& model);

}  // namespace shoestring
