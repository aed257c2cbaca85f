#pragma once
// A Hugging Face folder, opened for reading: its config.json and, under the names of our
// parameters, its weights. Nothing is held in memory but headers.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/hugging_face/config.h"
#include "io/hugging_face/names.h"
#include "io/safetensors_shards.h"

namespace shoestring {

class HuggingFaceFolder {
 public:
  // Does `path` look like one: a folder with config.json and no manifest of a checkpoint?
  static bool is_at(const std::string& path);

  // Data errors: whatever config.h and safetensors_shards.h refuse; tensors that are missing, that
  // nobody asked for or that have another shape than the config says, each with their lists.
  explicit HuggingFaceFolder(const std::string& path);

  const std::string& path() const { return shards_.folder(); }
  // Without prediction modules where the files leave them out, as transformers does when it saves;
  // with every later layer sparse where they are, whatever DeepSeek's moe_layer_freq says, which
  // transformers does not look at.
  const HuggingFaceConfig& config() const { return config_; }
  bool has(const std::string& parameter) const { return parts_.contains(parameter); }
  // Whether the parameter, or a part of it, is FP8 blocks.
  bool has_codes(const std::string& parameter) const;
  Dtype type_of(const std::string& parameter) const;  // bf16 when all of it is stored so, else f32
  // Elements [begin, end) of one of our parameters, or of a router's selection bias, as f32 or
  // bf16; FP8 blocks are multiplied by their scales in f32. The pages that were read are let go.
  // Data error with tensor, element and value for one that is not finite, and for a scale that is
  // not finite and above 0.
  void read(const std::string& parameter, int64_t begin, int64_t end, Dtype to,
            std::byte* out) const;

 private:
  void settle_prediction();
  void settle_frequency();
  void check_count() const;
  void check_tensors(const std::vector<FolderTensor>& wanted) const;
  std::string mismatch_of(const FolderTensor& tensor) const;
  void check_copies() const;
  void read_part(const FolderTensor& tensor, int64_t begin, int64_t end, float* out) const;
  void read_blocks(const FolderTensor& tensor, int64_t begin, int64_t end, float* out) const;
  void require_finite(const FolderTensor& tensor, int64_t begin,
                      std::span<const float> values) const;
  void require_scales(const FolderTensor& tensor, std::span<const float> scales) const;

  SafetensorsShards shards_;
  HuggingFaceConfig config_;
  std::map<std::string, std::vector<FolderTensor>> parts_;  // by parameter, in order
};

}  // namespace shoestring
