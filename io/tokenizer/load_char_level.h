#pragma once
// Reads the parts of a tokenizer.json that only SentencePiece-like tokenizers have (char_level.h).

#include "io/tokenizer/json_part.h"
#include "io/tokenizer/tokenizer_data.h"

namespace shoestring {

// The normalizer (Prepend, Replace, NFC), the pre-tokenizer (Metaspace or none) and the decoder
// (Replace, ByteFallback, Fuse, Strip). Data errors for what is none of these or does not fit.
void read_char_pipeline(JsonPart root, TokenizerData& data);

// The characters' and bytes' ids and the unknown token. `ids` finds a token's id by its name in
// the file, -1 for none.
void read_char_symbols(JsonPart model, const std::function<int32_t(std::string_view)>& ids,
                       TokenizerData& data);
// Enters one token of the vocabulary as what it decodes to.
void add_char_token(std::string_view name, int32_t id, TokenizerData& data);

}  // namespace shoestring
