#pragma once
// `shoestring data mix`. Returns the text it prints on standard output: what a
// run would draw from each source.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace shoestring {

struct DataMixOptions {
  std::string config = {};
  std::vector<std::string> overrides = {};
  std::optional<int64_t> tokens = {};  // of the whole run; default: train.steps of the config
  bool json = false;
};
// "1000000000", "1e9" or "2.5e9": a whole number; usage error for anything else.
int64_t parse_tokens(const std::string& text);
std::string data_mix(const DataMixOptions& options);

}  // namespace shoestring
