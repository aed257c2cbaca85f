#pragma once
// The only file that reads environment variables.

#include <optional>
#include <string>

namespace shoestring {

std::optional<std::string> environment_variable(const char* name);

}  // namespace shoestring
