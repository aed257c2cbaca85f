#pragma once
// Reads tiktoken's vocabulary files: a line a token, base64 of its bytes, a blank, its rank.

#include <memory>
#include <string_view>

#include "io/tokenizer/tokenizer_data.h"

namespace shoestring {

// The files hold neither the pattern nor the special tokens: those come from the table of published
// vocabularies, by the number of lines and the largest rank. Throws fail_data with the line number
// for a broken line, and for a vocabulary that is not in the table.
std::shared_ptr<const TokenizerData> parse_tiktoken(std::string_view lines, std::string_view name);

}  // namespace shoestring
