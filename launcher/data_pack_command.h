#pragma once
// `shoestring data pack`. Returns the text it prints on standard output; progress and remarks
// go to standard error.

#include <cstdint>
#include <string>
#include <vector>

#include "io/utf8_check.h"

namespace shoestring {

struct DataPackOptions {
  std::vector<std::string> inputs = {};
  std::string tokenizer = {};  // a path
  std::string out = {};
  std::string format = "auto";  // auto | text | jsonl
  std::string split = "file";   // file | lines | blank-lines
  std::string separator = {};   // not empty: documents of plain text end at this string
  std::string field = "text";
  std::string bad_utf8 = "error";  // error | replace | keep
  std::string memory = "512M";
  std::string end_of_document = {};  // a token; empty: the tokenizer's own; "none": no mark
  int threads = 0;                   // 0: all cores
  bool overwrite = false, restart = false, quiet = false;
};
std::string data_pack(const DataPackOptions& options);

// What --bad-utf8 may be: "error", "replace" or "keep"; usage error for anything else.
BadUtf8 parse_bad_utf8(const std::string& text);

// "512M", "2G", "100k", "4096": bytes; usage error for anything else.
int64_t parse_bytes(const std::string& text);

}  // namespace shoestring
