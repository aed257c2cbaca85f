#include "io/tokenizer/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/unicode.h"

namespace shoestring {

namespace {

bool is_unsafe(uint32_t code) { return CharTable::get().bits(code) & char_bits::nfc_unsafe; }

// Nothing may join a stray byte or a character that NFC does not know.
bool joins_nothing(uint32_t code) {
  const auto ranges = newer_than_nfc();
  const auto range = std::lower_bound(
      ranges.begin(), ranges.end(), code,
      [](const CodeRange& candidate, uint32_t wanted) { return candidate.last < wanted; });
  return code == invalid_code || (range != ranges.end() && range->first <= code);
}

void append_composed(std::string_view span, std::string& to) {
  utf8proc_uint8_t* composed = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(span.data()),
                   static_cast<utf8proc_ssize_t>(span.size()), &composed,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size < 0) {
    fail(cat("cannot put ", span.size(), " bytes into Unicode form NFC: ", utf8proc_errmsg(size)));
  }
  to.append(reinterpret_cast<const char*>(composed), static_cast<size_t>(size));
  std::free(composed);
}

}  // namespace

bool is_plainly_nfc(std::string_view text) {
  const char* p = text.data();
  const char* const end = p + text.size();
  while (p < end) {
    if (static_cast<unsigned char>(*p) < 0x80) {
      ++p;
      continue;
    }
    const Char c = decode_char(p, end);
    if (is_unsafe(c.code)) {
      return false;
    }
    p += c.length;
  }
  return true;
}

// Only spans around unsafe characters go through the library: from the safe character before one
// (which it may join) up to the next safe one.
std::string normalize_nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const char* p = text.data();
  const char* const end = p + text.size();
  const char* start = p;  // what is before `start` is in `out`
  const char* last = p;   // the character before p, if it can be joined
  bool in_span = false;
  while (p < end) {
    const Char c = decode_char(p, end);
    if (is_unsafe(c.code)) {
      if (!in_span) {
        out.append(start, last);
        start = last;
        in_span = true;
      }
    } else {
      if (in_span) {
        append_composed({start, static_cast<size_t>(p - start)}, out);
        start = p;
        in_span = false;
      }
      last = joins_nothing(c.code) ? p + c.length : p;
    }
    p += c.length;
  }
  if (in_span) {
    append_composed({start, static_cast<size_t>(end - start)}, out);
  } else {
    out.append(start, end);
  }
  return out;
}

}  // namespace shoestring
