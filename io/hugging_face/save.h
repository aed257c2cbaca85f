#pragma once
// Writes the weights and the JSON files of a Hugging Face folder. One piece of one tensor is in
// memory at a time.

#include <cstdint>
#include <functional>
#include <string>

#include "io/hugging_face/config.h"

namespace shoestring {

struct HuggingFaceExport {
  HuggingFaceConfig config = {};  // dtype f32 or bf16; with `blocks`, matrices are FP8
                                  // as fp8_choice.h says
  std::string generation = {};    // the model's own generation_config.json, kept but for the ids
  int64_t shard_bytes = int64_t{5'000'000'000};  // a file's tensors; one larger tensor is one file
  // Elements [begin, end) of one of our parameters, or of a router's selection bias.
  std::function<void(const std::string& parameter, int64_t begin, int64_t end, float* out)> read =
      {};
};

// config.json, generation_config.json, model.safetensors or shards with their index, in `folder`,
// which exists. Every file is synced.
void save_hugging_face(const HuggingFaceExport& model, const std::string& folder);

// A new file of a folder that is being made.
void write_text_file(const std::string& path, const std::string& text);

}  // namespace shoestring
