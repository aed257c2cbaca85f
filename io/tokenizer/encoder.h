#pragma once
// Encoding with memory of its own: scratch space and a cache of recent pieces. One Encoder a
// thread.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "io/tokenizer/scanners.h"
#include "io/tokenizer/tokenizer.h"

namespace shoestring {

class Encoder {
 public:
  // `cache_entries` is rounded up to a power of two; 64 bytes each; 0 for no cache.
  explicit Encoder(const Tokenizer& tokenizer, size_t cache_entries = 1 << 15);

  // Appends the text's ids to `ids`; adds no special tokens. Throws fail_data if the tokenizer has
  // no token for a byte of the text.
  void encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options = {});

 private:
  // One cache line: the bytes of a short piece, its length and its ids.
  struct alignas(64) CacheEntry {
    static constexpr size_t max_bytes = 31;
    static constexpr size_t max_ids = 7;
    uint64_t key[4] = {};  // the last byte holds the length; 0 marks an unused entry
    int32_t ids[max_ids] = {};
    int32_t count = 0;
  };

  // Where a section of a text begins: with the text, with a later piece of it, or behind an added
  // token.
  enum class Start { text, piece, inside };

  void encode_section(std::string_view text, Start start, bool special_as_text);
  void encode_plain(std::string_view text, Start start, bool prepend);
  void encode_characters(std::string_view text, Start start, bool prepend);
  void split(size_t step, const char* begin, const char* end);
  void encode_piece(const char* begin, size_t size);
  void encode_cached(const char* begin, size_t size);
  void merge_piece(const char* begin, size_t size);
  void fill_symbols(const char* begin, size_t size);

  std::shared_ptr<const TokenizerData> data_;
  std::vector<CacheEntry> cache_;
  int cache_shift_ = 0;
  std::vector<Regex::Scratch> searches_;  // one a split step
  std::vector<int32_t> symbols_;
  const char* readable_end_ = nullptr;  // of the text being split
  std::vector<int32_t>* ids_ = nullptr;
};

// Encodes many texts on several threads. Not to be called from two threads at once.
class BatchEncoder {
 public:
  BatchEncoder(const Tokenizer& tokenizer, int threads);

  // ids[i] becomes the ids of texts[i]. Errors of any thread reach the caller.
  void encode(std::span<const std::string_view> texts, std::vector<std::vector<int32_t>>& ids,
              EncodeOptions options = {});

 private:
  std::vector<Encoder> encoders_;
};

}  // namespace shoestring
