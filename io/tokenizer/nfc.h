#pragma once
// Unicode normalization form C, for tokenizers that ask for it (Qwen).

#include <string>
#include <string_view>

namespace shoestring {

// Whether `text` surely is in form NFC already (no character could change); most texts are.
bool is_plainly_nfc(std::string_view text);

// `text` in form NFC. Bytes that are no UTF-8 stay where they are and join nothing.
std::string normalize_nfc(std::string_view text);

}  // namespace shoestring
