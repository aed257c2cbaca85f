#pragma once
// Regular expressions of pre-tokenizers, run by PCRE2: the general path for patterns without a
// scanner of their own (scanners.h), and the scanners' slow twin in tests. The patterns are written
// for Oniguruma (Ruby syntax); `to_pcre2_pattern` replaces what the two engines read differently.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace shoestring {

// \s, \S and the general categories L N M P S become explicit classes with the code points of
// Unicode 16. Throws fail_data for what cannot be translated exactly: class intersections, nested
// classes, `{n,m}+`.
std::string to_pcre2_pattern(std::string_view pattern);

// Immutable and shared between threads; a search needs a `Scratch` of its own.
class Regex {
 public:
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(Scratch&&) noexcept;
    Scratch& operator=(Scratch&&) noexcept;

   private:
    friend class Regex;
    struct Handles;
    std::unique_ptr<Handles> handles_;
  };

  // Oniguruma syntax. Throws fail_data with the position of a syntax error.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // Begin and end of the first match that is not empty and starts at or after `from`. Bytes that
  // are no UTF-8 match nothing. Throws fail_data where the text exhausts the engine's limits.
  std::optional<std::pair<size_t, size_t>> find(std::string_view text, size_t from,
                                                Scratch& scratch) const;

 private:
  void* code_ = nullptr;  // pcre2_code
};

}  // namespace shoestring
