#pragma once
// What a peer's script wrote down to start from: weights as safetensors, token rows as .npy.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/param.h"

namespace shoestring {

// Fills the masters from a file with the names of a Hugging Face Llama; a fused matrix (q, k, v or
// gate and up) takes its parts' rows in order. f32 only.
void load_llama_weights(const std::string& path, ParamStore& store);

// ids [B, S + 1] -> a micro-batch whose labels are the next tokens; every row is one document.
MicroBatch whole_rows(std::span<const int32_t> ids, int64_t rows, int64_t length);

// int32 [micro-batches, B, S + 1] in a .npy file -> one micro-batch each.
std::vector<MicroBatch> load_token_rows(const std::string& path);

}  // namespace shoestring
