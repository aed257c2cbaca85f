#include "io/tokenizer/tokenizer_data.h"

#include <xxhash.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/byte_chars.h"
#include "io/tokenizer/nfc.h"

namespace shoestring {

namespace {

// Feeds a hash with values in one unambiguous form: numbers as 8 bytes, strings with their length.
class Digest {
 public:
  Digest() : state_(XXH3_createState()) {
    check(state_ != nullptr, "no memory for a hash");
    XXH3_128bits_reset(state_);
  }
  ~Digest() { XXH3_freeState(state_); }
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void add(int64_t number) {
    std::array<unsigned char, 8> bytes;
    for (size_t i = 0; i < 8; ++i) {
      bytes[i] = static_cast<unsigned char>(static_cast<uint64_t>(number) >> (8 * i));
    }
    XXH3_128bits_update(state_, bytes.data(), bytes.size());
  }
  void add(std::string_view text) {
    add(static_cast<int64_t>(text.size()));
    XXH3_128bits_update(state_, text.data(), text.size());
  }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_);
    return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
  }

 private:
  XXH3_state_t* state_;
};

void add_chars(const TokenizerData& data, Digest& digest) {
  const CharLevel& chars = *data.chars;
  digest.add("characters");
  for (const int64_t value :
       {int64_t{chars.prepend}, int64_t{chars.early}, static_cast<int64_t>(chars.scheme),
        int64_t{chars.split}, int64_t{chars.strip}, int64_t{chars.unknown},
        int64_t{chars.fuse_unknown}, static_cast<int64_t>(chars.char_ids.size())}) {
    digest.add(value);
  }
  for (const int32_t id : chars.char_ids) digest.add(int64_t{id});
  for (const int32_t id : data.byte_ids) digest.add(int64_t{id});
}

std::string hash_of(const TokenizerData& data) {
  Digest digest;
  digest.add("shoestring tokenizer 1");
  digest.add(int64_t{data.nfc} | int64_t{data.prefix_space} << 1 | int64_t{data.whole_pieces} << 2);
  digest.add(static_cast<int64_t>(data.steps.size()));
  for (const SplitStep& step : data.steps) {
    digest.add(step.name());
  }
  digest.add(data.tokens.size());
  for (int32_t id = 0; id < data.tokens.size(); ++id) {
    digest.add(int64_t{data.tokens.has(id)});
    digest.add(data.tokens[id]);
  }
  digest.add(static_cast<int64_t>(data.merges.size()));
  for (const MergeRule& merge : data.merges) {
    digest.add(merge.left);
    digest.add(merge.right);
  }
  for (const AddedToken& token : data.added) {
    digest.add(token.id);
    digest.add(token.content);
    digest.add(int64_t{token.single_word} | int64_t{token.lstrip} << 1 |
               int64_t{token.rstrip} << 2 | int64_t{token.normalized} << 3 |
               int64_t{token.special} << 4);
  }
  if (data.chars) add_chars(data, digest);
  return digest.hex();
}

// What is looked for in texts: normalized tokens stand in normalized texts.
std::string pattern_of(const TokenizerData& data, const AddedToken& token) {
  if (!token.normalized) return token.content;
  const std::string text = data.nfc ? normalize_nfc(token.content) : token.content;
  return data.chars ? data.chars->normalized(text, true) : text;
}

// An id that the vocabulary gives to something else, or a token that has another id there. Names of
// characters and bytes are not the tokens' bytes: there the loader compares.
void require_agreement(const TokenizerData& data, const AddedToken& token, std::string_view name) {
  const bool known = data.tokens.has(token.id);
  if (known && data.tokens[token.id] != token.content) {
    fail_data(cat(name, ": added token '", token.content, "' has the id ", token.id,
                  ", which the vocabulary gives to '", bytes_to_chars(data.tokens[token.id]), "'"));
  }
  const int32_t model_id = data.piece_ids.find(data.tokens, token.content);
  if (!known && model_id != TokenMap::none) {
    fail_data(cat(name, ": added token '", token.content, "' has the id ", token.id,
                  ", but the vocabulary says ", model_id));
  }
}

void take_in_added(TokenizerData& data, std::string_view name) {
  std::sort(data.added.begin(), data.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  std::vector<std::string_view> contents;
  for (size_t i = 0; i < data.added.size(); ++i) {
    const AddedToken& token = data.added[i];
    if (token.id < 0 || token.id > largest_token_id) {
      fail_data(cat(name, ": added token '", token.content, "' has the id ", token.id,
                    "; ids go from 0 to ", largest_token_id));
    }
    if (i > 0 && data.added[i - 1].id == token.id) {
      fail_data(cat(name, ": the added tokens '", data.added[i - 1].content, "' and '",
                    token.content, "' both have the id ", token.id));
    }
    if (token.id >= data.tokens.size()) {
      data.tokens.resize(token.id + 1);
    }
    if (!data.chars) require_agreement(data, token, name);
    const std::string bytes =
        data.chars ? data.chars->decoded(pattern_of(data, token)) : token.content;
    if (!data.tokens.has(token.id) || data.tokens[token.id] != bytes) {
      data.tokens.set(token.id, bytes);
    }
    contents.push_back(token.content);
  }
  std::sort(contents.begin(), contents.end());
  const auto twice = std::adjacent_find(contents.begin(), contents.end());
  if (twice != contents.end()) {
    fail_data(cat(name, ": the added token '", *twice, "' occurs twice"));
  }
}

// Beginning of text, then end of document, in the families' own words.
constexpr std::string_view bos_names[] = {"<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<s>",
                                          "<bos>"};
constexpr std::string_view end_names[] = {
    "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<EOT>", "<eos>"};

std::optional<int32_t> find_added(const TokenizerData& data,
                                  std::span<const std::string_view> names) {
  for (const std::string_view name : names) {
    for (const AddedToken& token : data.added) {
      if (token.content == name) {
        return token.id;
      }
    }
  }
  return std::nullopt;
}

}  // namespace

std::shared_ptr<const TokenizerData> finish_tokenizer(TokenizerData data, std::string_view name) {
  take_in_added(data, name);
  if (data.tokens.size() == 0) {
    fail_data(cat(name, ": the tokenizer has no tokens"));
  }
  data.is_special.resize(static_cast<size_t>(data.tokens.size()));
  for (const AddedToken& token : data.added) {
    data.is_special[static_cast<size_t>(token.id)] = token.special;
    auto& matcher = token.normalized ? data.normalized_matcher : data.raw_matcher;
    matcher.add(token, pattern_of(data, token));
  }
  data.pairs.reserve(data.merges.size());
  for (const MergeRule& merge : data.merges) {
    data.pairs.insert(merge.left, merge.right, {merge.rank, merge.joined});
  }
  if (!data.chars) {
    data.byte_ids.resize(256);
    for (int byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      data.byte_ids[static_cast<size_t>(byte)] = data.piece_ids.find(data.tokens, {&c, 1});
    }
  }
  data.end_of_text = find_added(data, end_names);
  if (!data.bos) {
    data.bos = find_added(data, bos_names);
  }
  if (!data.eos) {
    data.eos = data.end_of_text;
  }
  if (!data.end_of_text) {
    data.end_of_text = data.eos;
  }
  data.hash = hash_of(data);
  return std::make_shared<const TokenizerData>(std::move(data));
}

}  // namespace shoestring
