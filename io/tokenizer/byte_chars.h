#pragma once
// The printable stand-ins for bytes in tokenizer.json: byte-level tokens are stored as one
// character a byte. Printable Latin-1 bytes stand for themselves, the other 68 for U+0100 onwards.

#include <optional>
#include <string>
#include <string_view>

namespace shoestring {

// "Ġthe" for " the".
std::string bytes_to_chars(std::string_view bytes);

// " the" for "Ġthe"; none if a character stands for no byte.
std::optional<std::string> chars_to_bytes(std::string_view chars);

}  // namespace shoestring
