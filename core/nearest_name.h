#pragma once
// "Did you mean ...?": the known name that a misspelt one most likely stands for.

#include <span>
#include <string>
#include <string_view>

namespace shoestring {

// Insertions, deletions, replacements and swaps of neighbours that turn a into b (the optimal
// string alignment distance), in bytes, letters compared without case.
int edit_distance(std::string_view a, std::string_view b);

// The known name with the smallest distance, or "" when none is near: more than a third of the
// longer name would have to change (two edits are always near for names of five bytes and more).
// The first of several equally near ones wins.
std::string nearest_name(std::string_view name, std::span<const std::string> known);

}  // namespace shoestring
