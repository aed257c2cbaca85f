#pragma once
// `shoestring export`: a checkpoint becomes a complete Hugging Face folder.

#include <cstdint>
#include <string>

#include "launcher/model_source.h"

namespace shoestring {

struct ExportOptions {
  std::string model, out;
  std::string format = "hf";
  std::string dtype = {};  // "bf16" or "f32"; empty: the run's train.dtype
  bool fp8 = false;        // E4M3 with a scale for each block of 128 x 128, see fp8_choice.h
  bool no_mtp = false;     // leaves prediction modules out
  std::string shard_size = "5GB";
  std::string tokenizer = {};  // empty: the one beside the model
  bool force = false;          // replaces an earlier export at `out`
};

// Weights (of a run with optim.ema_decay the average), config, generation config, tokenizer files
// and a model card. A usage error when no published family computes what the model computes, and
// when --fp8 would write no FP8; warnings when there is no tokenizer, of matrices that are not FP8
// although --fp8 asks for it, and of those that transformers misreads.
void run_export(const ExportOptions& options);

// What to say of prediction modules that are exported; empty: nothing.
std::string prediction_hint(const ModelConfig& model);

// "5GB", "500MB", "2GiB" or bytes; a usage error for anything else.
int64_t parse_shard_size(const std::string& text);

}  // namespace shoestring
