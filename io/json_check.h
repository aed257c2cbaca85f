#pragma once
// A first look at JSON that strangers wrote, before it is parsed into values: parsers keep the last
// of two equal keys and follow any nesting.

#include <cstddef>
#include <string>
#include <string_view>

namespace shoestring {

// Data errors that name `path`: no valid JSON, no object, nested deeper than `deepest` brackets, or
// a key that an object has twice.
void check_json_object(std::string_view text, const std::string& path, size_t deepest = 64);

// The data error of text that the parser gave up after `position` bytes, with nlohmann's number of
// the error: for people, with where that is and what stands before it, and nothing that a terminal
// would obey.
[[noreturn]] void fail_json(std::string_view text, const std::string& path, size_t position,
                            int error);

}  // namespace shoestring
