#pragma once
// Which tensors a Hugging Face folder of a model holds, and which elements of our parameters each
// of them is: fused matrices here (q, k and v; gate and up; all experts) are many tensors there.

#include <cstdint>
#include <string>
#include <vector>

#include "io/hugging_face/config.h"

namespace shoestring {

struct FolderTensor {
  std::string name;            // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // of the tensor
  std::string parameter;       // "layers.0.attention.qkv.weight"
  int64_t begin = 0;           // its first element in the parameter
  bool quantised = false;      // FP8 in FP8 checkpoints
  bool always_f32 = false;     // whatever type the others have

  int64_t elements() const;
  // "model....weight_scale_inv"
  std::string scale_name() const { return name + "_scale_inv"; }
};

// A tensor that repeats a parameter: the embedding and the head in each prediction module, the head
// of a model that ties it.
struct FolderCopy {
  std::string name, parameter;
  bool written = false;  // false: only tolerated
};

// In the order of our parameters. The selection bias of a router, which DeepSeek-V3's files call
// e_score_correction_bias, belongs to "layers.i.moe.router.bias".
std::vector<FolderTensor> folder_tensors(ModelFamily family, const ModelConfig& model);
std::vector<FolderCopy> folder_copies(const ModelConfig& model);

// Tensors without elements that transformers expects nevertheless: of a DeepSeek model without
// shared experts, those experts' matrices. A file may leave them out.
std::vector<FolderTensor> empty_tensors(ModelFamily family, const ModelConfig& model);

// How many folder_tensors() would list, without listing them.
int64_t count_folder_tensors(const ModelConfig& model);

// Whether the family's sparse layers have a selection bias, and the name that it has here.
bool has_selection_bias(ModelFamily family);
std::string selection_bias_name(const ModelConfig& model, int64_t block);

}  // namespace shoestring
