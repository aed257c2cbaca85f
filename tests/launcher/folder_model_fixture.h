#pragma once
// The tiny Hugging Face folders in the tree, and copies of them to change.

#include <filesystem>
#include <string>

#include "tests/io/store_fixture.h"

namespace shoestring {

inline std::string golden_folder(const std::string& name) {
  return cat(SHOESTRING_SOURCE_DIR, "/tests/data/hf/", name);
}

inline std::string tokenizer_file(const std::string& name) {
  return cat(SHOESTRING_SOURCE_DIR, "/tests/data/tokenizer/", name);
}

// A copy with a tokenizer beside the weights.
inline std::string copy_with_tokenizer(const std::string& golden, const ScratchFolder& folder) {
  const std::string to = folder / golden;
  std::filesystem::copy(golden_folder(golden), to);
  std::filesystem::copy_file(tokenizer_file("trained_gpt2.json"), to + "/tokenizer.json");
  return to;
}

}  // namespace shoestring
