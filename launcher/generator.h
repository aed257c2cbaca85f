#pragma once
// Text from a model: a batch of prompts, token by token, with the keys and values of what was read
// kept (core/layers/cached_attention).

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/model/transformer.h"
#include "io/tokenizer/tokenizer.h"
#include "launcher/sampler.h"

namespace shoestring {

struct GenerateRequest {
  std::vector<std::string> prompts;
  int64_t max_tokens = 64;  // new ones, per prompt
  SamplerOptions sampler = {};
  std::vector<std::string> stop = {};   // generation ends before the first of these strings
  std::vector<int32_t> begin_ids = {};  // before each prompt that does not begin with them itself
  std::vector<int64_t> end_ids = {};    // end a text as the tokenizer's own end tokens do
  bool cached = true;  // false: the whole text runs through the model for every token
  // Called with each new piece of text of a prompt as it becomes certain; may be empty.
  std::function<void(size_t prompt, const std::string& text)> on_text = {};
  // Called when a prompt's text is complete, behind its last piece; may be empty.
  std::function<void(size_t prompt)> on_end = {};
  // Asked before each token but the first; true ends the generation with what is there.
  std::function<bool()> stop_early = {};
};

struct GenerateResult {
  std::vector<std::string> texts;         // new text, without the prompt
  std::vector<std::vector<int32_t>> ids;  // new tokens
  int64_t tokens = 0;                     // over all prompts
  double prefill_seconds = 0, decode_seconds = 0;
};

// A prompt that is empty begins with begin_ids, else with the tokenizer's end-of-text token
// (documents follow it in the training data). The context is bounded by the model's max_positions:
// longer requests are a usage error.
GenerateResult generate(Stream& stream, const Transformer& model, ParamSource& source,
                        const Tokenizer& tokenizer, const GenerateRequest& request);

}  // namespace shoestring
