#pragma once
// What a tokenizer is made of, in the order in which a text passes through it.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/tokenizer/added_tokens.h"
#include "io/tokenizer/byte_pairs.h"
#include "io/tokenizer/char_level.h"
#include "io/tokenizer/scanners.h"
#include "io/tokenizer/token_map.h"

namespace shoestring {

struct MergeRule {
  int32_t left, right, joined;  // ids
  int32_t rank;
};

struct TokenizerData {
  // Filled in by a loader.
  std::vector<AddedToken> added;
  bool nfc = false;
  bool prefix_space = false;  // a text that does not begin with a blank gets one
  std::vector<SplitStep> steps;
  std::optional<CharLevel> chars;  // none: byte-level
  bool whole_pieces = false;       // a piece that is a token is that token, whatever the merges say
  TokenBytes tokens;               // of the model
  TokenMap piece_ids;              // tokens of the model, by bytes
  std::vector<MergeRule> merges;   // ascending ranks
  std::optional<int32_t> bos, eos;

  // Derived by `finish_tokenizer`.
  AddedTokenMatcher raw_matcher, normalized_matcher;
  PairTable pairs;
  // 256; TokenMap::none for a byte without a token. A loader fills it in where there are `chars`.
  std::vector<int32_t> byte_ids;
  std::vector<bool> is_special;  // by id
  std::optional<int32_t> end_of_text;
  std::string hash;
};

// No id may be larger: a broken id must not make us allocate the memory of billions.
inline constexpr int64_t largest_token_id = (1 << 24) - 1;

// Takes in the added tokens (duplicate or contradictory ids are fail_data, `name` is the file),
// derives the rest and freezes it.
std::shared_ptr<const TokenizerData> finish_tokenizer(TokenizerData data, std::string_view name);

}  // namespace shoestring
