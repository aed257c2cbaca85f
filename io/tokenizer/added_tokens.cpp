#include "io/tokenizer/added_tokens.h"

#include <cstring>

#include "io/tokenizer/unicode.h"

namespace shoestring {

namespace {

bool has_bit_at(std::string_view text, size_t at, uint8_t bit) {
  if (at >= text.size()) {
    return false;
  }
  const Char c = decode_char(text.data() + at, text.data() + text.size());
  return CharTable::get().bits(c.code) & bit;
}

bool has_bit_before(std::string_view text, size_t at, uint8_t bit) {
  if (at == 0) {
    return false;
  }
  const Char c = decode_char_before(text.data(), text.data() + at);
  return CharTable::get().bits(c.code) & bit;
}

size_t skip_spaces_back(std::string_view text, size_t at, size_t limit) {
  while (at > limit && has_bit_before(text, at, char_bits::space)) {
    at -= decode_char_before(text.data(), text.data() + at).length;
  }
  return at;
}

size_t skip_spaces(std::string_view text, size_t at) {
  while (has_bit_at(text, at, char_bits::space)) {
    at += decode_char(text.data() + at, text.data() + text.size()).length;
  }
  return at;
}

}  // namespace

int32_t AddedTokenMatcher::child(int32_t node, unsigned char byte) const {
  for (const Edge& edge : nodes_[static_cast<size_t>(node)].edges) {
    if (edge.byte == byte) {
      return edge.node;
    }
  }
  return -1;
}

void AddedTokenMatcher::add(const AddedToken& token, std::string_view pattern) {
  int32_t node = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_[static_cast<size_t>(node)].edges.push_back({byte, next});
      nodes_.emplace_back();
    }
    node = next;
  }
  nodes_[static_cast<size_t>(node)].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  bool& is_first = is_first_[static_cast<unsigned char>(pattern[0])];
  if (!is_first) {
    is_first = true;
    first_bytes_ += pattern[0];
  }
}

size_t AddedTokenMatcher::next_candidate(std::string_view text, size_t from) const {
  if (first_bytes_.size() == 1) {
    const void* found = std::memchr(text.data() + from, first_bytes_[0], text.size() - from);
    return found == nullptr ? text.size()
                            : static_cast<size_t>(static_cast<const char*>(found) - text.data());
  }
  while (from < text.size() && !is_first_[static_cast<unsigned char>(text[from])]) {
    ++from;
  }
  return from;
}

AddedTokenMatcher::Match AddedTokenMatcher::find(std::string_view text, size_t from) const {
  for (size_t begin = next_candidate(text, from); begin < text.size();
       begin = next_candidate(text, begin + 1)) {
    Match longest;
    int32_t node = 0;
    for (size_t at = begin; at < text.size(); ++at) {
      node = child(node, static_cast<unsigned char>(text[at]));
      if (node < 0) {
        break;
      }
      if (nodes_[static_cast<size_t>(node)].token >= 0) {
        longest = {begin, at + 1, nodes_[static_cast<size_t>(node)].token};
      }
    }
    if (longest.token >= 0) {
      return longest;
    }
  }
  return {text.size(), text.size(), -1};
}

// A match that is refused (its token is text here, or stands inside a word) is passed over whole:
// no other token is looked for inside it, as in the reference library.
void AddedTokenMatcher::split(std::string_view text, bool special_as_text,
                              const std::function<void(std::string_view)>& between,
                              const std::function<void(int32_t)>& token) const {
  size_t done = 0;
  size_t from = 0;
  while (!tokens_.empty() && from < text.size()) {
    const Match match = find(text, from);
    if (match.token < 0) {
      break;
    }
    from = match.end;
    const AddedToken& added = tokens_[static_cast<size_t>(match.token)];
    const bool inside_word =
        added.single_word && (has_bit_before(text, match.begin, char_bits::word) ||
                              has_bit_at(text, match.end, char_bits::word));
    // A token before it may have taken this one's leading blanks.
    if ((special_as_text && added.special) || inside_word || match.begin < done) {
      continue;
    }
    const size_t begin = added.lstrip ? skip_spaces_back(text, match.begin, done) : match.begin;
    if (begin > done) {
      between(text.substr(done, begin - done));
    }
    token(added.id);
    done = added.rstrip ? skip_spaces(text, match.end) : match.end;
  }
  if (done < text.size()) {
    between(text.substr(done));
  }
}

}  // namespace shoestring
