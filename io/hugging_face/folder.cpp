#include "io/hugging_face/folder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/check.h"
#include "core/text.h"
#include "io/convert_elements.h"
#include "io/durable_file.h"
#include "io/hugging_face/fp8_blocks.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t config_limit = uint64_t{1} << 24;
constexpr int64_t piece_elements = int64_t{1} << 22;  // read at a time, so that pages can be let go

std::string config_path(const std::string& folder) { return folder + "/config.json"; }

HuggingFaceConfig read_config(const std::string& folder) {
  const std::string path = config_path(folder);
  return parse_hugging_face_config(read_small_file(path, config_limit), path);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) append(text, i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

// Tables that older versions saved; they follow from the config.
bool is_ignorable(const std::string& name) { return name.ends_with("rotary_emb.inv_freq"); }

bool is_fp8(const SafetensorsEntry& entry) { return entry.dtype == Dtype::f8e4m3; }

// DeepSeek writes f32, Qwen3's FP8 folders have bf16 and f16; both are f32 exactly.
bool is_type_of_scales(const SafetensorsEntry& entry) {
  return entry.dtype == Dtype::f32 || entry.dtype == Dtype::bf16 || entry.dtype == Dtype::f16;
}

}  // namespace

bool HuggingFaceFolder::is_at(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(config_path(path), error) &&
         !fs::exists(path + "/manifest.json", error);
}

HuggingFaceFolder::HuggingFaceFolder(const std::string& path)
    : shards_(path), config_(read_config(path)) {
  settle_prediction();
  settle_frequency();
  check_count();
  const std::vector<FolderTensor> tensors = folder_tensors(config_.family, config_.model);
  check_tensors(tensors);
  for (const FolderTensor& tensor : tensors) parts_[tensor.parameter].push_back(tensor);
  check_copies();
}

// The config of a model that transformers saved still counts modules whose weights it left out.
void HuggingFaceFolder::settle_prediction() {
  ModelConfig& m = config_.model;
  std::vector<std::string> prefixes;
  for (int64_t k = 0; k < m.mtp.depth; ++k) {
    prefixes.push_back(cat("model.layers.", m.layers + k, "."));
  }
  for (const std::string& name : shards_.names()) {
    for (const std::string& prefix : prefixes) {
      if (name.starts_with(prefix)) return;
    }
  }
  m.mtp.depth = 0;
}

void HuggingFaceFolder::settle_frequency() {
  const ModelConfig& m = config_.model;
  if (!is_deepseek(config_.family) || m.moe.every == 1) return;
  for (int64_t i = m.moe.first_dense; i < m.layers; ++i) {
    if (m.moe.sparse(i) || !shards_.has(cat("model.layers.", i, ".mlp.gate.weight"))) continue;
    config_.model.moe.every = 1;
    return;
  }
}

// Before lists are made whose length a config may invent.
void HuggingFaceFolder::check_count() const {
  const auto held = static_cast<int64_t>(shards_.names().size());
  const int64_t wanted = count_folder_tensors(config_.model);
  if (wanted > 2 * held + 1000) {
    fail_data(cat(config_path(path()), " describes a model of ", wanted,
                  " tensors, but the files beside it hold ", held));
  }
}

std::string HuggingFaceFolder::mismatch_of(const FolderTensor& tensor) const {
  const SafetensorsEntry& entry = shards_.entry(tensor.name);
  if (entry.shape != tensor.shape) {
    return cat(tensor.name, " is ", shape_text(entry.shape), " but should be ",
               shape_text(tensor.shape));
  }
  if (!entry.dtype || !is_float(*entry.dtype)) {
    return cat(tensor.name, " is ", entry.type, ", which is no type of weights");
  }
  if (!is_fp8(entry) || !config_.blocks.on()) return "";
  if (tensor.shape.size() != 2) return cat(tensor.name, " is FP8 but no matrix");
  const Fp8Layout layout{
      .rows = tensor.shape[0], .columns = tensor.shape[1], .blocks = config_.blocks};
  const std::vector<int64_t> shape = {layout.scale_rows(), layout.scale_columns()};
  if (!shards_.has(tensor.scale_name())) return cat(tensor.scale_name(), " is missing");
  const SafetensorsEntry& scale = shards_.entry(tensor.scale_name());
  if (scale.shape == shape && is_type_of_scales(scale)) return "";
  return cat(tensor.scale_name(), " is ", scale.type, " ", shape_text(scale.shape),
             " but should be F32, BF16 or F16 ", shape_text(shape));
}

void HuggingFaceFolder::check_tensors(const std::vector<FolderTensor>& wanted) const {
  std::set<std::string> known;
  std::vector<std::string> missing, wrong, unexpected;
  for (const FolderTensor& tensor : wanted) {
    known.insert(tensor.name);
    if (!shards_.has(tensor.name)) {
      missing.push_back(cat(tensor.name, " ", shape_text(tensor.shape), " for ", tensor.parameter));
      continue;
    }
    const bool blocks = config_.blocks.on() && is_fp8(shards_.entry(tensor.name));
    if (blocks) known.insert(tensor.scale_name());
    const std::string mismatch = mismatch_of(tensor);
    if (!mismatch.empty()) wrong.push_back(mismatch);
  }
  for (const FolderCopy& copy : folder_copies(config_.model)) known.insert(copy.name);
  for (const FolderTensor& tensor : empty_tensors(config_.family, config_.model)) {
    if (shards_.has(tensor.name) && shards_.entry(tensor.name).shape == tensor.shape) {
      known.insert(tensor.name);
    }
  }
  for (const std::string& name : shards_.names()) {
    if (!known.contains(name) && !is_ignorable(name)) {
      unexpected.push_back(cat(name, " ", shape_text(shards_.entry(name).shape)));
    }
  }
  std::string text;
  if (!missing.empty()) append(text, "\nparameters that no tensor fills:", listed(missing));
  if (!unexpected.empty()) append(text, "\ntensors that fill no parameter:", listed(unexpected));
  if (!wrong.empty()) append(text, "\ntensors that do not fit:", listed(wrong));
  if (!text.empty()) {
    fail_data(cat(path(), ": the weights are not those of the ", model_type_of(config_.family),
                  " model that config.json describes", text));
  }
}

// A copy that differs is a parameter that the model here does not have.
void HuggingFaceFolder::check_copies() const {
  std::vector<float> own, other;
  for (const FolderCopy& copy : folder_copies(config_.model)) {
    if (!shards_.has(copy.name)) continue;
    const SafetensorsEntry& entry = shards_.entry(copy.name);
    const FolderTensor& original = parts_.at(copy.parameter).front();
    bool same = entry.shape == original.shape && entry.dtype && is_float(*entry.dtype);
    for (int64_t at = 0; same && at < original.elements(); at += piece_elements) {
      const int64_t end = std::min(at + piece_elements, original.elements());
      own.resize(static_cast<size_t>(end - at));
      other.resize(own.size());
      shards_.read(original.name, at, end, Dtype::f32, reinterpret_cast<std::byte*>(own.data()));
      shards_.read(copy.name, at, end, Dtype::f32, reinterpret_cast<std::byte*>(other.data()));
      same = std::memcmp(own.data(), other.data(), own.size() * sizeof(float)) == 0;
    }
    if (!same) {
      fail_data(cat(path(), ": ", copy.name, " differs from ", original.name,
                    ", of which config.json makes it a copy",
                    config_.model.tied_embeddings ? " (set \"tie_word_embeddings\": false?)" : ""));
    }
  }
}

bool HuggingFaceFolder::has_codes(const std::string& parameter) const {
  if (!config_.blocks.on()) return false;
  const std::vector<FolderTensor>& parts = parts_.at(parameter);
  return std::any_of(parts.begin(), parts.end(),
                     [&](const FolderTensor& t) { return is_fp8(shards_.entry(t.name)); });
}

Dtype HuggingFaceFolder::type_of(const std::string& parameter) const {
  for (const FolderTensor& tensor : parts_.at(parameter)) {
    if (shards_.entry(tensor.name).dtype != Dtype::bf16) return Dtype::f32;
  }
  return Dtype::bf16;
}

// Told by the exponents, in one pass that vector units take: it costs next to nothing beside the
// reading.
void HuggingFaceFolder::require_finite(const FolderTensor& tensor, int64_t begin,
                                       std::span<const float> values) const {
  constexpr uint32_t magnitude = 0x7fffffff, infinite = 0x7f800000;
  uint32_t most = 0;
  for (const float value : values) {
    most = std::max(most, std::bit_cast<uint32_t>(value) & magnitude);
  }
  if (most < infinite) return;
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  const bool blocks = config_.blocks.on() && is_fp8(shards_.entry(tensor.name));
  fail_data(cat(path(), ": element ", begin + (bad - values.begin()), " of ", tensor.name, " ",
                shape_text(tensor.shape), " is ", *bad,
                blocks ? " (its code times its block's scale)" : "",
                ": weights must be finite; the file is damaged, or training had gone wrong"));
}

void HuggingFaceFolder::require_scales(const FolderTensor& tensor,
                                       std::span<const float> scales) const {
  const auto bad = std::find_if(scales.begin(), scales.end(),
                                [](float scale) { return !std::isfinite(scale) || scale <= 0; });
  if (bad == scales.end()) return;
  fail_data(cat(path(), ": element ", bad - scales.begin(), " of ", tensor.scale_name(), " ",
                shape_text(shards_.entry(tensor.scale_name()).shape), " is ", *bad,
                ": scales must be finite and above 0; the file is damaged"));
}

void HuggingFaceFolder::read_blocks(const FolderTensor& tensor, int64_t begin, int64_t end,
                                    float* out) const {
  const Fp8Layout layout{
      .rows = tensor.shape[0], .columns = tensor.shape[1], .blocks = config_.blocks};
  std::vector<float> scales(static_cast<size_t>(layout.scale_rows() * layout.scale_columns()));
  shards_.read(tensor.scale_name(), 0, static_cast<int64_t>(scales.size()), Dtype::f32,
               reinterpret_cast<std::byte*>(scales.data()));
  require_scales(tensor, scales);
  std::vector<uint8_t> codes(static_cast<size_t>(end - begin));
  shards_.read(tensor.name, begin, end, Dtype::f8e4m3, reinterpret_cast<std::byte*>(codes.data()));
  dequantise_blocks(layout, codes, scales, begin, out);
}

void HuggingFaceFolder::read_part(const FolderTensor& tensor, int64_t begin, int64_t end,
                                  float* out) const {
  if (is_fp8(shards_.entry(tensor.name)) && config_.blocks.on()) {
    return read_blocks(tensor, begin, end, out);
  }
  shards_.read(tensor.name, begin, end, Dtype::f32, reinterpret_cast<std::byte*>(out));
}

void HuggingFaceFolder::read(const std::string& parameter, int64_t begin, int64_t end, Dtype to,
                             std::byte* out) const {
  const auto at = parts_.find(parameter);
  if (at == parts_.end()) fail(cat(path(), " holds no parameter ", parameter));
  const int64_t all = at->second.back().begin + at->second.back().elements();
  if (begin < 0 || begin > end || end > all) {
    fail(cat("elements ", begin, " to ", end, " are not in ", parameter, ", which has ", all));
  }
  std::vector<float> values;
  for (const FolderTensor& tensor : at->second) {
    const int64_t first = std::max(begin, tensor.begin);
    const int64_t last = std::min(end, tensor.begin + tensor.elements());
    for (int64_t i = first; i < last; i += piece_elements) {
      const int64_t stop = std::min(i + piece_elements, last);
      std::byte* to_piece = out + static_cast<size_t>(i - begin) * size_of(to);
      values.resize(static_cast<size_t>(stop - i));
      read_part(tensor, i - tensor.begin, stop - tensor.begin, values.data());
      require_finite(tensor, i - tensor.begin, values);
      convert_elements(reinterpret_cast<const std::byte*>(values.data()), Dtype::f32, stop - i, to,
                       to_piece);
    }
  }
}

}  // namespace shoestring
