#pragma once
// config.json of Hugging Face folders: what model a folder holds. Both conventions are read, that
// of transformers 4 (rope_theta, rope_scaling, torch_dtype) and that of transformers 5
// (rope_parameters, dtype); config_text.h writes keys of both.

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/model/config.h"

namespace shoestring {

// By model_type; Llama 3, SmolLM2 and many others are `llama`, Moonlight is `deepseek_v3`.
enum class ModelFamily : uint8_t {
  llama,
  mistral,
  qwen2,
  qwen3,
  qwen3_moe,
  mixtral,
  deepseek_v2,
  deepseek_v3
};
inline constexpr int num_model_families = 8;
std::string_view model_type_of(ModelFamily family);    // "llama"
std::string_view architecture_of(ModelFamily family);  // "LlamaForCausalLM"
bool is_deepseek(ModelFamily family);

// E4M3 weights with one scale a block of so many rows and columns; 0: none.
struct Fp8Blocks {
  int64_t rows = 0, columns = 0;
  bool on() const { return rows > 0; }
};

struct HuggingFaceConfig {
  ModelFamily family = ModelFamily::llama;
  ModelConfig model = {};
  Dtype dtype = Dtype::f32;  // of the weights: f32, bf16 or f16
  Fp8Blocks blocks = {};
  // For an export: our parameters that were read as codes of such blocks (fp8_choice.h).
  std::set<std::string> coded = {};
  std::vector<int64_t> begin_ids = {}, end_ids = {};
  // Of what is read by its letter but is hardly meant; with the file's name, to be told once.
  std::vector<std::string> warnings = {};
};

// Whether any layer is sparse: experts may begin after the last. Such a model is dense.
bool has_sparse_layers(const ModelConfig& model);

// Data errors name `path`, the key and its value: missing and impossible values, and whatever the
// models here do not compute (other activations, biases, rope kinds, quantisations). What a file
// leaves out has the default of the family's class, but for sizes without which there is no model.
// mtp.depth is what the file says; whether the weights are there is known to folder.h.
HuggingFaceConfig parse_hugging_face_config(std::string_view json, const std::string& path);

}  // namespace shoestring
