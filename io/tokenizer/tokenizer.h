#pragma once
// BPE tokenizers: text -> ids -> bytes. Loads `tokenizer.json` files, byte-level ones (the GPT-2,
// Llama-3, Qwen2/3 and DeepSeek-V3 kinds, and those that train_bpe.h writes) and character-level
// ones (char_level.h: Llama 2, Mistral, Mixtral, Gemma), and tiktoken files; ids equal those of the
// reference library. Every byte string is a text: bytes that are no UTF-8 belong to no character
// class, are split off as such and come back unchanged from `decode`.
//
//   const Tokenizer tokenizer = Tokenizer::load("tokenizer.json");
//   Encoder encoder(tokenizer);                  // one a thread
//   encoder.encode(text, ids);                   // appends
//   tokenizer.decode(ids) == text                // unless a normalizer or lstrip changed it, or
//                                                // a blank that was put in front of a part of it

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

struct TokenizerData;  // tokenizer_data.h

struct EncodeOptions {
  // Strings of special tokens in the text are ordinary text: for packing documents, which may
  // mention "<|endoftext|>" without ending there.
  bool special_as_text = false;
  // The text goes on where another piece of the same document ended: no blank is put in front.
  bool continues = false;
};

// A cheap handle to immutable data, safe to share between threads.
class Tokenizer {
 public:
  // `path`: a tokenizer.json, a .tiktoken file, or a folder that holds tokenizer.json (then
  // tokenizer_config.json beside it, if there, names the bos and eos tokens). Throws fail_data
  // naming the file and the offending entry.
  static Tokenizer load(const std::filesystem::path& path);
  // The contents of a tokenizer.json or of a tiktoken file; `name` stands for it in messages.
  static Tokenizer from_json(std::string_view json, std::string_view name);
  static Tokenizer from_tiktoken(std::string_view lines, std::string_view name);

  explicit Tokenizer(std::shared_ptr<const TokenizerData> data) : data_(std::move(data)) {}

  // No special tokens are added. Convenient for single texts; Encoder is much faster for many.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;
  // The tokens' bytes, joined, less what the tokenizer's decoder drops where a text begins (the
  // blank that character-level ones put there). Throws fail_data for an id without a token.
  std::string decode(std::span<const int32_t> ids) const;

  // One more than the largest id.
  int32_t vocabulary_size() const;
  bool has_id(int32_t id) const;
  // The bytes an id stands for, as in " the"; throws fail_data for an id without a token.
  std::string_view id_to_bytes(int32_t id) const;
  // From bytes to the id, special tokens first; `none` if no token has just these bytes.
  std::optional<int32_t> token_to_id(std::string_view bytes) const;
  bool is_special(int32_t id) const;

  // Begin of text and end of text as the files name them; what ends a document in pre-training
  // (<|endoftext|> and its relatives, else eos).
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> end_of_text_id() const;

  // 32 hexadecimal digits (XXH3, 128 bits) over what decides ids: tokens, merges, patterns, added
  // tokens, normalizer. Two files that encode alike by these rules have equal hashes.
  const std::string& hash() const;

  const TokenizerData& data() const { return *data_; }
  const std::shared_ptr<const TokenizerData>& shared() const { return data_; }

 private:
  std::shared_ptr<const TokenizerData> data_;
};

// Decodes ids one by one for display: an unfinished UTF-8 character is held back until its last
// byte arrives. The outputs, joined, are exactly decode(ids), or the end of decode(all ids) where
// the ids go on with a text: then a blank in front belongs to it.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool begins_text = true);
  std::string push(int32_t id);
  // What is still held back: the start of a character that never ended.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  std::string held_;
  int strip_ = 0;  // blanks still to be dropped
};

}  // namespace shoestring
