#pragma once
// A first look at JSON that strangers wrote, before it is parsed into values: parsers keep the last
// of two equal keys and follow any nesting.

#include <string>
#include <string_view>

namespace shoestring {

// Data errors that name `path`: no valid JSON, no object, nested deeper than `deepest` brackets, or
// a key that an object has twice.
void check_json_object(std::string_view text, const std::string& path, size_t deepest = 64);

}  // namespace shoestring
