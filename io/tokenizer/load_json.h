#pragma once
// Reads tokenizer.json: BPE, byte-level or character-level. Through Tokenizer::load and from_json.

#include <memory>
#include <string>
#include <string_view>

#include "io/tokenizer/tokenizer_data.h"

namespace shoestring {

// tokenizer_config.json beside it, which may name the bos and eos tokens; empty for none.
struct TokenizerConfigText {
  std::string config;
  std::string config_name;
};

// Throws fail_data naming `name` and the entry for broken JSON, missing or contradictory entries,
// and for parts that such tokenizers do not have (Unigram, WordPiece, Lowercase, ...).
std::shared_ptr<const TokenizerData> parse_tokenizer_json(std::string_view json,
                                                          std::string_view name,
                                                          const TokenizerConfigText& beside);

}  // namespace shoestring
