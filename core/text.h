#pragma once
// Building messages. Debian's Abseil is compiled with its own string_view, which differs from
// std::string_view; this is the one place that knows.

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"

namespace shoestring {

template <class T>
decltype(auto) text_piece(const T& x) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return absl::string_view(x.data(), x.size());
  } else {
    return (x);
  }
}

// cat("step ", 3, " of ", name): strings, characters as strings, numbers (six digits for floats).
template <class... A>
std::string cat(const A&... pieces) {
  return absl::StrCat(text_piece(pieces)...);
}
template <class... A>
void append(std::string& to, const A&... pieces) {
  absl::StrAppend(&to, text_piece(pieces)...);
}

}  // namespace shoestring
