#pragma once
// How large a config's model is, in words: what `config show` ends with and a run begins with.

#include <string>

#include "core/model/config.h"

namespace shoestring {

// As core/model/parameters.h counts them, but of any config in a moment: of blocks of one kind only
// one is looked at, and the numbers are f64, exact below 2^53, because sizes that a config may name
// overflow 64 bits.
struct ParameterCounts {
  double total = 0;       // without prediction modules
  double active = 0;      // of these, without the routed experts that a token does not pass
  double prediction = 0;  // of the modules' own
  double sparse_layers = 0;
};
ParameterCounts parameter_counts(const ModelConfig& model);

// Comment lines: the total, what of it is active for a token, and what is not counted.
std::string comment_of_parameters(const ModelConfig& model);

// "5.6 M parameters (1.2 M of them in 1 prediction module), 3.4 M active for a token", what of it
// is the case; the first number counts the modules, which published counts of DeepSeek-V3 leave
// out.
std::string text_of_parameters(const ModelConfig& model);

}  // namespace shoestring
