#pragma once
// Where a command reads a model from: PATH is a run's folder, its checkpoints folder, one
// checkpoint, or a Hugging Face folder, which is read as it is. One piece of one tensor is in
// memory at a time.

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/flat_span.h"
#include "core/param.h"
#include "io/checkpoint.h"
#include "io/hugging_face/folder.h"
#include "launcher/run_config.h"

namespace shoestring {

// What a model was read as from an FP8 folder: the blocks, and the parameters that had codes.
struct Fp8Origin {
  Fp8Blocks blocks = {};
  std::set<std::string> parameters = {};
};

class ModelSource {
 public:
  // Data errors: nothing there, or nothing that can be read.
  explicit ModelSource(const std::string& path);

  // The checkpoint's folder, or the Hugging Face folder.
  const std::string& path() const { return path_; }
  // The run's folder, of one of its checkpoints; the Hugging Face folder.
  std::string home() const;
  // Null for a checkpoint.
  const HuggingFaceFolder* folder() const { return folder_ ? &*folder_ : nullptr; }
  // Of the run that made it. For a Hugging Face folder the defaults, with its model and type.
  const RunConfig& config() const { return config_; }
  // The model as it is now: with positions as the stage left them that the checkpoint was made in.
  ModelConfig model() const;
  // Parameters that the watchdog has put back to bf16 in the run, in their order.
  std::vector<std::string> fallen_matrices() const;
  // Of an FP8 folder and of an import of one; else without blocks.
  Fp8Origin fp8_origin() const;
  int64_t step() const { return checkpoint_ ? checkpoint_->step() : 0; }

  // The tokenizer beside the weights or in the config; empty when there is none.
  const std::string& tokenizer_path() const { return tokenizer_path_; }
  // Hash of the tokenizer that the model was trained with; empty where nothing says so. That of a
  // Hugging Face folder is the one beside the weights.
  std::string trained_hash() const;

  // Of a run that keeps an average of the weights: read that one. Else nothing changes.
  void prefer_average();

  bool has(const std::string& name) const;
  // f32, or bf16 where reading as that loses nothing.
  Dtype stored_type(const std::string& name) const;
  // Elements [begin, end) of a parameter ("layers.0.mlp.down.weight") as f32 or bf16. A state that
  // the source does not have (a selection bias) is zeros.
  void read(const std::string& name, int64_t begin, int64_t end, Dtype to, std::byte* out) const;
  // What a rank holds of a parameter, one element after the other.
  void read_part(const ParamInfo& part, Dtype to, std::byte* out) const;

  // Fills the masters, which may be parts of the parameters. Data error with the parameters that
  // differ when the store is of another model; `remedy` ends it. `model`: the whole model, where
  // the store holds a stage of it.
  void restore(ParamStore& store, std::string_view remedy,
               const ModelConfig* model = nullptr) const;
  // The same for a rank that has only the masters of `owned`. Copies are the caller's.
  void restore(ParamStore& store, std::string_view remedy, const ModelConfig* model,
               const FlatSpan<float>& masters, std::span<const FlatRange> owned) const;

 private:
  std::string mismatch(const std::vector<std::pair<std::string, Shape>>& wanted) const;
  std::string checkpoint_name(const std::string& name) const;

  std::string path_;
  std::optional<Checkpoint> checkpoint_;
  std::optional<HuggingFaceFolder> folder_;
  RunConfig config_;
  std::string tokenizer_path_;
  bool average_ = false;
};

// One line for each key of the two models by which the same weights compute other numbers, "model.
// rope.theta: 10000 there, 500000 here": what shapes do not tell.
std::vector<std::string> other_uses_of_weights(const ModelConfig& there, const ModelConfig& here);

}  // namespace shoestring
