#pragma once
// `shoestring data inspect`. Returns the text it prints on standard output.

#include <cstdint>
#include <optional>
#include <string>

namespace shoestring {

struct DataInspectOptions {
  std::string file = {};
  bool verify = false;  // every chunk, not only the index
  bool json = false;
  std::optional<int64_t> document = {};  // print this document's token ids
  std::string tokenizer = {};            // with `document`: its text as well
};
std::string data_inspect(const DataInspectOptions& options);

}  // namespace shoestring
