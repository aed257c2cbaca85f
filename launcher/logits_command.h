#pragma once
// `shoestring logits`: the raw logits of given ids, for judges of numbers. Written a block of rows
// at a time, so [batch, sequence, vocabulary] never exists in memory.

#include <cstdint>
#include <string>

#include "launcher/loaded_model.h"

namespace shoestring {

struct LogitsOptions {
  ModelRequest model;
  std::string ids;  // JSON file: a list of equally long lists of ids
  std::string out;  // safetensors file with `logits` f32 [batch, sequence, vocabulary]
  bool overwrite = false;
  int64_t chunk_bytes = int64_t{64} << 20;  // of logits that exist at once, about
};

// Usage error where `out` is there, unless `overwrite` is set or the file is empty or logits that
// an earlier call wrote.
void run_logits(const LogitsOptions& options);

}  // namespace shoestring
