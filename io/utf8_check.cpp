#include "io/utf8_check.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

uint8_t byte_at(std::string_view bytes, size_t i) { return static_cast<uint8_t>(bytes[i]); }

// Length of the run of ASCII at the start, eight bytes at a time.
size_t ascii_run(std::string_view bytes) {
  size_t i = 0;
  for (uint64_t word = 0; i + 8 <= bytes.size(); i += 8) {
    std::memcpy(&word, bytes.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < bytes.size() && byte_at(bytes, i) < 0x80) ++i;
  return i;
}

std::string hex(uint8_t byte) {
  const char* digits = "0123456789abcdef";
  return {'0', 'x', digits[byte >> 4], digits[byte & 15]};
}

}  // namespace

// The table of well-formed sequences: Unicode 15, section 3.9, table 3-7.
int utf8_sequence(std::string_view bytes, int* broken) {
  const uint8_t first = byte_at(bytes, 0);
  *broken = 0;
  if (first < 0x80) return 1;
  const int length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length == 0) {
    *broken = 1;
    return 0;
  }
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) >= bytes.size()) return 0;
    uint8_t low = 0x80, high = 0xbf;
    if (i == 1) {
      if (first == 0xe0) low = 0xa0;
      if (first == 0xed) high = 0x9f;  // no surrogates
      if (first == 0xf0) low = 0x90;
      if (first == 0xf4) high = 0x8f;
    }
    const uint8_t next = byte_at(bytes, static_cast<size_t>(i));
    if (next < low || next > high) {
      *broken = i;
      return 0;
    }
  }
  return length;
}

void Utf8Check::feed(std::string_view bytes, std::string& out) {
  std::string joined;
  if (!waiting_.empty()) {
    joined = waiting_;
    joined += bytes;
    bytes = joined;
    waiting_.clear();
  }
  size_t good = 0;  // bytes[done, done + good) are well-formed and not yet written
  size_t done = 0;
  while (done + good < bytes.size()) {
    const std::string_view rest = bytes.substr(done + good);
    const size_t ascii = ascii_run(rest);
    if (ascii > 0) {
      good += ascii;
      continue;
    }
    int broken = 0;
    const int length = utf8_sequence(rest, &broken);
    good += static_cast<size_t>(length);
    if (length > 0) continue;
    out += bytes.substr(done, good);
    position_ += good;
    done += good;
    good = 0;
    if (broken == 0) {
      waiting_ = rest;
      return;
    }
    bad(rest.substr(0, static_cast<size_t>(broken)), out);
    done += static_cast<size_t>(broken);
  }
  out += bytes.substr(done, good);
  position_ += good;
}

void Utf8Check::finish(std::string& out) {
  if (!waiting_.empty()) bad(waiting_, out);
  waiting_.clear();
}

void refuse_utf16(std::string_view start, const std::string& where) {
  using namespace std::string_view_literals;
  constexpr size_t enough = 4096, least = 8;
  bool utf16 = start.starts_with("\xff\xfe"sv) || start.starts_with("\xfe\xff"sv) ||
               start.starts_with("\0\0\xfe\xff"sv);
  start = start.substr(0, std::min(start.size(), enough));
  size_t zeros[4] = {};  // at the bytes of units of four
  for (size_t i = 0; i < start.size(); ++i) zeros[i % 4] += start[i] == 0 ? 1 : 0;
  const auto [few, many] = std::minmax({zeros[0] + zeros[2], zeros[1] + zeros[3]});
  std::sort(std::begin(zeros), std::end(zeros));
  const bool pairs = many * 10 >= start.size() * 4 && few * 20 <= many;
  const bool fours = zeros[1] * 5 >= start.size() && zeros[0] * 20 <= zeros[1];
  utf16 = utf16 || (start.size() >= least && (pairs || fours));
  if (!utf16) return;
  fail_data(cat(where, ": this is UTF-16 or UTF-32 text; convert it to UTF-8 first, for example ",
                "with iconv -f UTF-16 -t UTF-8"));
}

void require_utf8(std::string_view text, const std::string& where) {
  Utf8Check check(where, BadUtf8::error);
  std::string ignored;
  check.feed(text, ignored);
  check.finish(ignored);
}

void Utf8Check::bad(std::string_view part, std::string& out) {
  if (policy_ == BadUtf8::error) {
    const uint8_t byte = byte_at(part, 0);
    fail_data(
        cat(path_, ": bad UTF-8 at byte ", position_, ": ", hex(byte), "; repair the text", hint_));
  }
  if (policy_ == BadUtf8::replace) {
    out += "\xef\xbf\xbd";
    ++replaced_;
  } else {
    out += part;
  }
  position_ += part.size();
}

}  // namespace shoestring
