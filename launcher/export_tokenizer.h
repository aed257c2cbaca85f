#pragma once
// The tokenizer's files of an exported folder.

#include <cstdint>
#include <string>
#include <vector>

namespace shoestring {

struct TokenIds {
  std::vector<int64_t> begin = {}, end = {};
};

// The text of a generation_config.json in this folder, a JSON object; "" when there is none.
std::string generation_text(const std::string& folder);

// The ids it names; none when there is none.
TokenIds generation_ids(const std::string& folder);

struct TokenizerExport {
  std::string path;       // tokenizer.json, its folder, or a .tiktoken file
  std::string folder;     // where the files go
  int64_t positions = 0;  // of the model
  std::string trained_hash = {};
  bool own = true;  // the model's own tokenizer; else it must have `trained_hash`
};

// tokenizer.json as it is, or made from a .tiktoken file; tokenizer_config.json, the one beside it
// with a class that every version of transformers has, or a new one; chat_template.jinja if there
// is one. Returns the ids for the model's config: those of a generation_config.json beside the
// tokenizer, else those that the tokenizer names. A tokenizer that is not read here (Unigram, ...)
// is passed on as it is.
TokenIds export_tokenizer(const TokenizerExport& request);

}  // namespace shoestring
