#pragma once
// Text that may hold anything (names in files of strangers, what stands in a damaged file), made
// safe to show: a terminal obeys control characters.

#include <string>
#include <string_view>

namespace shoestring {

// Line feeds, tabs and printable UTF-8 stay; every byte of a control character (also of U+0080 to
// U+009F) and every byte that is no UTF-8 becomes \x1b, \xff, ...
std::string printable(std::string_view text);

}  // namespace shoestring
