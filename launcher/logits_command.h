#pragma once
// `shoestring logits`: the raw logits of given ids, for judges of numbers.

#include <string>

#include "launcher/loaded_model.h"

namespace shoestring {

struct LogitsOptions {
  ModelRequest model;
  std::string ids;  // JSON file: a list of equally long lists of ids
  std::string out;  // safetensors file with `logits` f32 [batch, sequence, vocabulary]
};

void run_logits(const LogitsOptions& options);

}  // namespace shoestring
