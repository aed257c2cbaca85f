#pragma once
// Which ids stand around a text, by the files beside a model.

#include <cstdint>
#include <string>
#include <vector>

#include "launcher/loaded_model.h"

namespace shoestring {

struct TextBorders {
  // What transformers puts before a text: the tokens that the TemplateProcessing of tokenizer.json
  // has there, as Llama's begin-of-text. Empty for most.
  std::vector<int32_t> begin = {};
  // Any of them ends a text: `eos_token_id` of config.json and of generation_config.json.
  std::vector<int64_t> end = {};
};

// Of a model with a tokenizer. Data errors name the file and the entry.
TextBorders text_borders(const LoadedModel& loaded);

// `begin` of a tokenizer.json, the folder that holds one, or a .tiktoken file, which has none.
std::vector<int32_t> ids_before_text(const std::string& path, const Tokenizer& tokenizer);

}  // namespace shoestring
