#pragma once
// `shoestring generate`: text from a checkpoint, streamed as it arrives.

#include <string>
#include <vector>

#include "launcher/generator.h"
#include "launcher/loaded_model.h"

namespace shoestring {

struct GenerateOptions {
  ModelRequest model;
  GenerateRequest request;
  bool json = false;  // one object with prompts, texts and rates instead of the text
};

// Prints to standard output; rates go to standard error.
void run_generate(const GenerateOptions& options);

}  // namespace shoestring
