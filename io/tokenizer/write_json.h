#pragma once
// A tokenizer of ours as a complete tokenizer.json.

#include <string>

#include "io/tokenizer/tokenizer.h"

namespace shoestring {

// Reading it gives a tokenizer of the same hash. For tokenizers that came from a .tiktoken file and
// must go where only tokenizer.json is known: for byte-level ones.
std::string tokenizer_json(const Tokenizer& tokenizer);

}  // namespace shoestring
