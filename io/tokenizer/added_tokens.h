#pragma once
// Added tokens: strings that are cut out of a text before it is split and merged, such as
// "<|endoftext|>". Matching is leftmost, then longest.

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only between characters that belong to no word
  bool lstrip = false;       // takes the blanks before it along
  bool rstrip = false;       // and those after it
  bool normalized = true;    // matched against the normalized text instead of the text itself
  bool special = false;
};

// Finds the tokens of one set in texts; immutable after the last `add`.
class AddedTokenMatcher {
 public:
  // `pattern` is what to look for (the content, or its normalized form); not empty.
  void add(const AddedToken& token, std::string_view pattern);
  bool empty() const { return tokens_.empty(); }

  // Calls between(text) for what lies between tokens (never empty) and token(id) for each token,
  // in order. With `special_as_text` the special ones are left in the text.
  void split(std::string_view text, bool special_as_text,
             const std::function<void(std::string_view)>& between,
             const std::function<void(int32_t)>& token) const;

 private:
  struct Match {
    size_t begin = 0, end = 0;
    int32_t token = -1;  // index into tokens_; -1 for none
  };
  struct Edge {
    unsigned char byte;
    int32_t node;
  };
  struct Node {
    std::vector<Edge> edges;
    int32_t token = -1;
  };

  int32_t child(int32_t node, unsigned char byte) const;
  size_t next_candidate(std::string_view text, size_t from) const;
  Match find(std::string_view text, size_t from) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{1};
  std::array<bool, 256> is_first_{};  // bytes that some pattern begins with
  std::string first_bytes_;           // the same, in order of addition
};

}  // namespace shoestring
