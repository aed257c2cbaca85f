#pragma once
// Runs the shoestring binary as a user does and keeps what it printed.

#include <string>
#include <vector>

namespace shoestring {

struct BinaryResult {
  int exit_code = 0;  // 128 + the signal's number when a signal ended it
  std::string out, err;
};

BinaryResult run_binary(const std::vector<std::string>& arguments, const std::string& input = "");

}  // namespace shoestring
