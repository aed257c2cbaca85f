#pragma once
// Numbers with their noun, as people write them: "1 token", "2 tokens", "0 entries".

#include <cstdint>
#include <string>
#include <string_view>

#include "core/text.h"

namespace shoestring {

// `several` for nouns that take more than an s: counted(n, "entry", "entries").
inline std::string counted(int64_t n, std::string_view one, std::string_view several = {}) {
  if (n == 1) return cat(n, " ", one);
  return several.empty() ? cat(n, " ", one, "s") : cat(n, " ", several);
}

}  // namespace shoestring
