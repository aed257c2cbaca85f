#pragma once
// The bytes of every token, by id, and the way back: bytes -> id for whole pieces.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

// Ids may have holes (vocabularies that reserve some): a hole has no bytes and is not `has`.
class TokenBytes {
 public:
  void resize(int32_t size) { tokens_.resize(static_cast<size_t>(size)); }
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  void set(int32_t id, std::string_view bytes);
  bool has(int32_t id) const {
    return id >= 0 && id < size() && tokens_[static_cast<size_t>(id)].length != hole;
  }
  std::string_view operator[](int32_t id) const {
    const Place& place = tokens_[static_cast<size_t>(id)];
    return {arena_.data() + place.start, place.length == hole ? 0 : place.length};
  }

 private:
  static constexpr uint32_t hole = ~uint32_t{0};
  struct Place {
    size_t start = 0;
    uint32_t length = hole;
  };
  std::string arena_;
  std::vector<Place> tokens_;
};

// Bytes -> id over the tokens of one TokenBytes.
class TokenMap {
 public:
  static constexpr int32_t none = -1;

  // Makes room for `count` tokens and forgets all.
  void reset(size_t count);
  // The first id with some bytes stays; returns the id that is in the map now.
  int32_t insert(const TokenBytes& tokens, int32_t id);
  int32_t find(const TokenBytes& tokens, std::string_view bytes) const;

 private:
  size_t start_of(std::string_view bytes) const;

  std::vector<int32_t> slots_;
  size_t mask_ = 0;
};

}  // namespace shoestring
