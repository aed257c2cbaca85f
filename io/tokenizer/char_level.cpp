#include "io/tokenizer/char_level.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/tokenizer_data.h"
#include "io/tokenizer/unicode.h"

namespace shoestring {

namespace {

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  while (true) {
    const size_t at = text.find(from);
    out += text.substr(0, at);
    if (at == std::string_view::npos) return out;
    out += to;
    text.remove_prefix(at + from.size());
  }
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

uint32_t last_code(std::string_view bytes) {
  return decode_char_before(bytes.data(), bytes.data() + bytes.size()).code;
}

[[noreturn]] void fail_without_token(const Char& c, const char* at) {
  const std::string what =
      c.code == invalid_code
          ? cat("byte ", static_cast<int>(static_cast<unsigned char>(*at)), " (decimal)")
          : cat("character ", absl::StrFormat("U+%04X", c.code));
  fail_data(cat("the tokenizer has no token for the ", what,
                ", which the text contains, none for its bytes and none for what is unknown"));
}

}  // namespace

std::string marks_for_blanks(std::string_view text) { return replaced(text, " ", blank_mark); }
std::string blanks_for_marks(std::string_view text) { return replaced(text, blank_mark, " "); }

std::optional<uint8_t> byte_of_name(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = digit_of(token[3]), low = digit_of(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

std::string CharLevel::normalized(std::string_view text, bool prepend_here) const {
  std::string out = early ? marks_for_blanks(text) : std::string(text);
  return prepend && prepend_here ? cat(blank_mark, out) : out;
}

std::string CharLevel::decoded(std::string_view token) const {
  const auto byte = names_bytes ? byte_of_name(token) : std::nullopt;
  return byte ? std::string(1, static_cast<char>(*byte)) : blanks_for_marks(token);
}

const char* CharLevel::next_piece(const char* at, const char* end) const {
  if (!split && !cuts) return end;
  for (const char* p = at + 1; p < end; ++p) {
    const void* found = std::memchr(p, ' ', static_cast<size_t>(end - p));
    if (found == nullptr) return end;
    p = static_cast<const char*>(found);
    if (split) return p;
    const uint32_t before = decode_char_before(at, p).code;
    if (before >= joins_blank.size() || !joins_blank[before]) return p;
  }
  return end;
}

// A merge across the border of x and a blank makes a token in which they stand side by side, so
// some merge has a left part that ends with x and a right part that begins with a blank. Where none
// has, no merge crosses, and both sides can be merged alone. That holds for symbols that are
// characters: merges of bytes or of the unknown token make it void.
void find_cuts(TokenizerData& data) {
  CharLevel& chars = *data.chars;
  chars.joins_blank.assign(chars.char_ids.size(), false);
  chars.cuts = chars.plain_merges && chars.char_ids.size() > ' ' && chars.char_ids[' '] >= 0;
  for (const MergeRule& merge : data.merges) {
    if (!data.tokens[merge.right].starts_with(" ") || data.tokens[merge.left].empty()) continue;
    const uint32_t code = last_code(data.tokens[merge.left]);
    if (code >= chars.joins_blank.size()) {
      chars.cuts = false;
    } else {
      chars.joins_blank[code] = true;
    }
  }
}

void append_symbols(const TokenizerData& data, std::string_view text,
                    std::vector<int32_t>& symbols) {
  const CharLevel& chars = *data.chars;
  const auto byte_id = [&](char c) { return data.byte_ids[static_cast<unsigned char>(c)]; };
  const char* const end = text.data() + text.size();
  bool waiting = false;  // an unknown token, for more of them to fuse with
  Char c{};
  for (const char* p = text.data(); p < end; p += c.length) {
    c = decode_char(p, end);
    if (c.code < chars.char_ids.size() && chars.char_ids[c.code] >= 0) {
      if (waiting) symbols.push_back(chars.unknown);
      waiting = false;
      symbols.push_back(chars.char_ids[c.code]);
      continue;
    }
    const std::string_view bytes = c.code == ' ' ? blank_mark : std::string_view(p, c.length);
    if (std::all_of(bytes.begin(), bytes.end(), [&](char b) { return byte_id(b) >= 0; })) {
      // The reference library leaves an unknown token waiting here: it comes behind the bytes.
      for (const char b : bytes) symbols.push_back(byte_id(b));
      continue;
    }
    if (chars.unknown < 0) fail_without_token(c, p);
    if (waiting && !chars.fuse_unknown) symbols.push_back(chars.unknown);
    waiting = true;
  }
  if (waiting) symbols.push_back(chars.unknown);
}

int32_t whole_token(const TokenizerData& data, std::string_view text) {
  const auto byte = byte_of_name(text);
  if (byte && data.byte_ids[*byte] >= 0) return data.byte_ids[*byte];
  return data.piece_ids.find(data.tokens, text);
}

}  // namespace shoestring
