#pragma once
// Character-level BPE as SentencePiece makes it (Llama 2, Mistral, Mixtral, TinyLlama, Gemma): the
// first symbols are the characters of a text, blanks among them; a character without a token
// becomes the tokens of its UTF-8 bytes, <0x00> to <0xFF>. Files write a blank as U+2581, the blank
// mark. Here tokens and texts hold the blank itself, and the token of a byte holds that byte, so
// that tokens are what they decode to.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

struct TokenizerData;

inline constexpr std::string_view blank_mark = "\xE2\x96\x81";

std::string marks_for_blanks(std::string_view text);
std::string blanks_for_marks(std::string_view text);

// 10 for "<0x0A>"; none for any other text.
std::optional<uint8_t> byte_of_name(std::string_view token);

struct CharLevel {
  enum class Scheme { never, first, always };

  // The normalizer's part: it works on what lies between the added tokens with `normalized` false.
  bool prepend = false;  // a blank mark is put in front
  bool early = false;    // blanks become marks
  // The pre-tokenizer's part: it works on what lies between any two added tokens. With `always` a
  // blank is put in front of what does not begin with one; with `first` where the text begins.
  Scheme scheme = Scheme::never;
  bool split = false;  // merges never cross the border before a blank

  bool names_bytes = false;  // the decoder turns <0x0A> into a byte
  int strip = 0;             // the decoder drops so many blanks where a text begins

  std::vector<int32_t> char_ids;  // by code point; -1, or beyond the end: no token
  int32_t unknown = -1;           // the token for what has no other
  bool fuse_unknown = false;      // one for a run of them
  bool plain_merges = true;       // no merge has to do with the tokens of bytes or the unknown one

  // Derived by `find_cuts`: whether a text may be merged in pieces that begin at blanks, and the
  // characters that some merge joins to a following blank: there it may not.
  bool cuts = false;
  std::vector<bool> joins_blank;

  // The text that normalized added tokens are looked for in; `prepend_here` is false where a piece
  // goes on with a text.
  std::string normalized(std::string_view text, bool prepend_here) const;
  // What a token of the file decodes to, apart from `strip`.
  std::string decoded(std::string_view token) const;
  // The end of the piece that begins at `at` < end: pieces can be merged one by one.
  const char* next_piece(const char* at, const char* end) const;
};

// Both need data.chars. `find_cuts` runs once the vocabulary and the merges are read.
void find_cuts(TokenizerData& data);
// Appends the symbols that merging begins with. Data error for a character without a token.
void append_symbols(const TokenizerData& data, std::string_view text,
                    std::vector<int32_t>& symbols);
// A token that is the whole text as the file has it; -1 for none.
int32_t whole_token(const TokenizerData& data, std::string_view text);

}  // namespace shoestring
