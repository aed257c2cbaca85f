#include "io/tokenizer/encoder.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/nfc.h"
#include "io/tokenizer/tokenizer_data.h"

namespace shoestring {

namespace {

// The first `size` bytes (up to 31) of what 32 readable bytes hold, the rest zero.
std::array<uint64_t, 4> load_key(const char* begin, size_t size, bool readable) {
  std::array<uint64_t, 4> key{};
  if (!readable) {
    std::memcpy(key.data(), begin, size);
    return key;
  }
  std::memcpy(key.data(), begin, 32);
  for (size_t word = 0; word < 4; ++word) {
    const size_t kept = std::min<size_t>(8, size - std::min(size, word * 8));
    key[word] &= kept == 8 ? ~uint64_t{0} : (uint64_t{1} << (kept * 8)) - 1;
  }
  return key;
}

uint64_t mix(const std::array<uint64_t, 4>& key) {
  uint64_t hash = (key[0] ^ std::rotl(key[2], 32)) * 0x9E3779B97F4A7C15u;
  hash ^= (key[1] ^ std::rotl(key[3], 17)) * 0xC2B2AE3D27D4EB4Fu;
  return (hash ^ hash >> 32) * 0x165667B19E3779F9u;
}

}  // namespace

Encoder::Encoder(const Tokenizer& tokenizer, size_t cache_entries)
    : data_(tokenizer.shared()), searches_(data_->steps.size()) {
  if (cache_entries > 0) {
    cache_.resize(std::bit_ceil(std::max<size_t>(cache_entries, 2)));
    cache_shift_ = 64 - std::countr_zero(cache_.size());
  }
}

void Encoder::encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options) {
  ids_ = &ids;
  const Start first = options.continues ? Start::piece : Start::text;
  const auto between = [&](std::string_view section) {
    encode_section(section, section.data() == text.data() ? first : Start::inside,
                   options.special_as_text);
  };
  data_->raw_matcher.split(text, options.special_as_text, between,
                           [&](int32_t id) { ids_->push_back(id); });
}

void Encoder::encode_section(std::string_view text, Start start, bool special_as_text) {
  std::string changed;
  if (data_->nfc && !is_plainly_nfc(text)) {
    changed = normalize_nfc(text);
    text = changed;
  }
  const bool prepend = data_->chars && data_->chars->prepend && start != Start::piece;
  if (data_->normalized_matcher.empty()) {
    encode_plain(text, start, prepend);
    return;
  }
  if (data_->chars && (data_->chars->early || prepend)) {
    changed = data_->chars->normalized(text, prepend);
    text = changed;
  }
  const auto between = [&](std::string_view section) {
    encode_plain(section, section.data() == text.data() ? start : Start::inside, false);
  };
  data_->normalized_matcher.split(text, special_as_text, between,
                                  [&](int32_t id) { ids_->push_back(id); });
}

void Encoder::encode_plain(std::string_view text, Start start, bool prepend) {
  if (data_->chars) {
    encode_characters(text, start, prepend);
    return;
  }
  std::string prefixed;
  if (data_->prefix_space && start != Start::piece && text[0] != ' ') {
    prefixed = cat(" ", text);
    text = prefixed;
  }
  readable_end_ = text.data() + text.size();
  split(0, text.data(), readable_end_);
}

// Blanks and their marks are one from here on.
void Encoder::encode_characters(std::string_view text, Start start, bool prepend) {
  using Scheme = CharLevel::Scheme;
  const CharLevel& chars = *data_->chars;
  const bool has_blank = prepend || text[0] == ' ' || text.starts_with(blank_mark);
  const bool wanted = chars.scheme == Scheme::always
                          ? start != Start::piece
                          : chars.scheme == Scheme::first && start == Start::text;
  std::string changed;
  if (prepend || (wanted && !has_blank)) {
    changed = cat(" ", text);
    text = changed;
  }
  if (text.find(blank_mark) != std::string_view::npos) {
    changed = blanks_for_marks(text);
    text = changed;
  }
  const char* const end = text.data() + text.size();
  readable_end_ = end;
  if (data_->whole_pieces && !chars.split) {
    if (const int32_t id = whole_token(*data_, text); id != TokenMap::none) {
      ids_->push_back(id);
      return;
    }
  }
  for (const char* at = text.data(); at < end;) {
    const char* const next = chars.next_piece(at, end);
    encode_piece(at, static_cast<size_t>(next - at));
    at = next;
  }
}

void Encoder::split(size_t step, const char* begin, const char* end) {
  if (step == data_->steps.size()) {
    encode_piece(begin, static_cast<size_t>(end - begin));
    return;
  }
  const SplitStep& how = data_->steps[step];
  const bool is_last = step + 1 == data_->steps.size();
  for (const char* at = begin; at < end;) {
    const char* const next = how.next(begin, at, end, searches_[step]);
    if (is_last) {
      encode_piece(at, static_cast<size_t>(next - at));
    } else {
      split(step + 1, at, next);
    }
    at = next;
  }
}

void Encoder::encode_piece(const char* begin, size_t size) {
  if (size <= CacheEntry::max_bytes && !cache_.empty()) {
    encode_cached(begin, size);
  } else {
    merge_piece(begin, size);
  }
}

void Encoder::encode_cached(const char* begin, size_t size) {
  auto key = load_key(begin, size, readable_end_ - begin >= 32);
  key[3] |= static_cast<uint64_t>(size) << 56;
  CacheEntry& entry = cache_[mix(key) >> cache_shift_];
  if (std::memcmp(entry.key, key.data(), sizeof(entry.key)) == 0) [[likely]] {
    ids_->insert(ids_->end(), entry.ids, entry.ids + entry.count);
    return;
  }
  const size_t before = ids_->size();
  merge_piece(begin, size);
  const size_t count = ids_->size() - before;
  if (count <= CacheEntry::max_ids) {
    std::copy(key.begin(), key.end(), entry.key);
    std::copy(ids_->begin() + static_cast<std::ptrdiff_t>(before), ids_->end(), entry.ids);
    entry.count = static_cast<int32_t>(count);
  }
}

void Encoder::merge_piece(const char* begin, size_t size) {
  // Of a text that is not split, this may be a part only: the whole has been looked up before.
  if (data_->whole_pieces && (!data_->chars || data_->chars->split)) {
    const int32_t id = data_->chars ? whole_token(*data_, {begin, size})
                                    : data_->piece_ids.find(data_->tokens, {begin, size});
    if (id != TokenMap::none) {
      ids_->push_back(id);
      return;
    }
  }
  fill_symbols(begin, size);
  const size_t count = merge_pairs(data_->pairs, symbols_);
  ids_->insert(ids_->end(), symbols_.begin(),
               symbols_.begin() + static_cast<std::ptrdiff_t>(count));
}

void Encoder::fill_symbols(const char* begin, size_t size) {
  symbols_.clear();
  if (data_->chars) {
    append_symbols(*data_, {begin, size}, symbols_);
    return;
  }
  symbols_.resize(size);
  for (size_t i = 0; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(begin[i]);
    symbols_[i] = data_->byte_ids[byte];
    if (symbols_[i] == TokenMap::none) {
      fail_data(cat("the tokenizer has no token for the byte ", static_cast<int>(byte),
                    " (decimal), which the text contains"));
    }
  }
}

BatchEncoder::BatchEncoder(const Tokenizer& tokenizer, int threads) {
  check(threads >= 1, "a batch encoder needs at least one thread");
  for (int i = 0; i < threads; ++i) {
    encoders_.emplace_back(tokenizer);
  }
}

void BatchEncoder::encode(std::span<const std::string_view> texts,
                          std::vector<std::vector<int32_t>>& ids, EncodeOptions options) {
  ids.resize(texts.size());
  std::atomic<size_t> next{0};
  std::exception_ptr error;
  std::mutex error_lock;
  const auto work = [&](Encoder& encoder) {
    // Neighbouring results lie in one cache line, so each thread appends to a vector of its own.
    std::vector<int32_t> own;
    try {
      for (size_t i = next++; i < texts.size(); i = next++) {
        own.clear();
        encoder.encode(texts[i], own, options);
        ids[i].assign(own.begin(), own.end());
      }
    } catch (...) {
      const std::lock_guard lock(error_lock);
      error = std::current_exception();
      next = texts.size();
    }
  };
  std::vector<std::jthread> threads;
  for (size_t i = 1; i < encoders_.size(); ++i) {
    threads.emplace_back([&, i] { work(encoders_[i]); });
  }
  work(encoders_[0]);
  threads.clear();  // joins
  if (error) {
    std::rethrow_exception(error);
  }
}

}  // namespace shoestring
