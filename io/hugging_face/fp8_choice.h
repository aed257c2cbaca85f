#pragma once
// Which matrices of an exported folder are FP8 blocks. Readers disagree about blocks that are cut
// at a matrix's edge, which DeepSeek's own format allows: transformers 5.23 without a GPU derives a
// block's rows as rows / scale_rows, so it refuses them or, where that divides, multiplies by the
// wrong scales; vLLM and SGLang refuse them in layers that they fuse.

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "io/hugging_face/config.h"
#include "io/hugging_face/names.h"

namespace shoestring {

// Of a model that was read as FP8 (config.coded is not empty): what had codes has codes, whatever
// its shape, so that a folder comes back as it was. Else every matrix that FP8 checkpoints
// quantise, if its sides are multiples of the blocks' and so are those of the ones that readers
// fuse it with: q, k and v; gate and up; the two down-projections of latent attention; a layer's
// experts.
class Fp8Choice {
 public:
  // Without blocks nothing is FP8.
  explicit Fp8Choice(const HuggingFaceConfig& config);

  bool is_fp8(const FolderTensor& tensor) const;
  // modules_to_not_convert of quantization_config: the head, routers that are linear layers, and
  // the matrices that stay as they are; a layer's experts by their one name.
  const std::vector<std::string>& plain_modules() const { return plain_modules_; }

  // Of the matrices that FP8 checkpoints quantise: how many are FP8 and how many are not; and the
  // kinds ("model.layers.*.self_attn.o_proj.weight [96, 80]") of those that are not, and of those
  // FP8 ones whose cut blocks transformers does not read.
  int64_t fp8() const { return fp8_; }
  int64_t plain() const { return plain_; }
  const std::vector<std::string>& plain_kinds() const { return plain_kinds_; }
  const std::vector<std::string>& cut_kinds() const { return cut_kinds_; }

 private:
  bool is_cut(const FolderTensor& tensor) const;
  void add(const FolderTensor& tensor);
  void add_plain_module(ModelFamily family, const FolderTensor& tensor);

  Fp8Blocks blocks_;
  std::set<std::string> coded_;
  std::set<std::string> cut_groups_;
  std::vector<std::string> plain_modules_, plain_kinds_, cut_kinds_;
  int64_t fp8_ = 0, plain_ = 0;
};

}  // namespace shoestring
