#include "io/hugging_face/save.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "io/convert_elements.h"
#include "io/durable_file.h"
#include "io/hugging_face/config_text.h"
#include "io/hugging_face/fp8_blocks.h"
#include "io/hugging_face/fp8_choice.h"
#include "io/hugging_face/names.h"
#include "io/safetensors_shards.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

constexpr int64_t piece_elements = int64_t{1} << 22;

// A tensor of a file, and the scales that go with it.
struct Planned {
  FolderTensor tensor;
  Dtype dtype = Dtype::f32;
  bool blocks = false;
  std::vector<SafetensorsSpec> specs = {};

  int64_t bytes() const {
    int64_t sum = 0;
    for (const SafetensorsSpec& spec : specs) {
      int64_t n = static_cast<int64_t>(size_of(spec.dtype));
      for (int64_t dim : spec.shape) n *= dim;
      sum += n;
    }
    return sum;
  }
};

Fp8Layout layout_of(const FolderTensor& tensor, const Fp8Blocks& blocks) {
  return {.rows = tensor.shape[0], .columns = tensor.shape[1], .blocks = blocks};
}

Planned plan_tensor(const HuggingFaceConfig& config, const Fp8Choice& choice, FolderTensor tensor) {
  Planned plan{.tensor = std::move(tensor), .dtype = config.dtype};
  if (plan.tensor.always_f32) plan.dtype = Dtype::f32;
  plan.blocks = choice.is_fp8(plan.tensor);
  if (plan.blocks) plan.dtype = Dtype::f8e4m3;
  plan.specs.push_back({.name = plan.tensor.name, .dtype = plan.dtype, .shape = plan.tensor.shape});
  if (plan.blocks) {
    const Fp8Layout layout = layout_of(plan.tensor, config.blocks);
    plan.specs.push_back({.name = plan.tensor.scale_name(),
                          .dtype = Dtype::f32,
                          .shape = {layout.scale_rows(), layout.scale_columns()}});
  }
  return plan;
}

std::vector<Planned> plan_tensors(const HuggingFaceConfig& config) {
  const Fp8Choice choice(config);
  std::vector<Planned> list;
  std::map<std::string, FolderTensor> whole;
  for (FolderTensor& tensor : folder_tensors(config.family, config.model)) {
    if (tensor.begin == 0) whole[tensor.parameter] = tensor;
    list.push_back(plan_tensor(config, choice, std::move(tensor)));
  }
  for (FolderTensor& tensor : empty_tensors(config.family, config.model)) {
    list.push_back(plan_tensor(config, choice, std::move(tensor)));
  }
  for (const FolderCopy& copy : folder_copies(config.model)) {
    if (!copy.written) continue;
    FolderTensor tensor = whole.at(copy.parameter);
    tensor.name = copy.name;
    list.push_back(plan_tensor(config, choice, std::move(tensor)));
  }
  return list;
}

// A new file where the tensor would make the last one too large.
std::vector<std::vector<Planned>> plan_files(std::vector<Planned> tensors, int64_t limit) {
  std::vector<std::vector<Planned>> files;
  int64_t held = 0;
  for (Planned& plan : tensors) {
    const int64_t bytes = plan.bytes();
    if (files.empty() || held + bytes > limit) {
      files.emplace_back();
      held = 0;
    }
    held += bytes;
    files.back().push_back(std::move(plan));
  }
  return files;
}

void write_plain(const HuggingFaceExport& model, const Planned& plan, SafetensorsWriter& writer) {
  std::vector<float> values;
  std::vector<std::byte> stored;
  const int64_t all = plan.tensor.elements();
  for (int64_t at = 0; at < all; at += piece_elements) {
    const int64_t count = std::min(piece_elements, all - at);
    values.resize(static_cast<size_t>(count));
    stored.resize(values.size() * size_of(plan.dtype));
    const int64_t begin = plan.tensor.begin + at;
    model.read(plan.tensor.parameter, begin, begin + count, values.data());
    convert_elements(reinterpret_cast<const std::byte*>(values.data()), Dtype::f32, count,
                     plan.dtype, stored.data());
    writer.write(plan.tensor.name, at, count, stored.data());
  }
}

// One of them would take its whole block with it.
void require_finite(const FolderTensor& tensor, int64_t at, const std::vector<float>& values) {
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return;
  fail_data(cat("element ", at + (bad - values.begin()), " of ", tensor.name, " (",
                tensor.parameter, ") is ", *bad,
                ", which FP8 blocks cannot hold; export a checkpoint from before, or without --fp8",
                " to look at the weights"));
}

// A strip of whole blocks at a time.
void write_blocks(const HuggingFaceExport& model, const Planned& plan, SafetensorsWriter& writer) {
  const Fp8Layout layout = layout_of(plan.tensor, model.config.blocks);
  const int64_t strip = layout.blocks.rows * layout.columns, all = plan.tensor.elements();
  std::vector<float> values, scales;
  std::vector<uint8_t> codes;
  for (int64_t at = 0; at < all; at += strip) {
    const int64_t count = std::min(strip, all - at), begin = plan.tensor.begin + at;
    values.resize(static_cast<size_t>(count));
    model.read(plan.tensor.parameter, begin, begin + count, values.data());
    require_finite(plan.tensor, at, values);
    const auto quantise = model.config.coded.empty() ? quantise_blocks : requantise_blocks;
    quantise(layout, values, codes, scales);
    writer.write(plan.tensor.name, at, count, reinterpret_cast<const std::byte*>(codes.data()));
  }
  writer.write(plan.tensor.scale_name(), 0, static_cast<int64_t>(scales.size()),
               reinterpret_cast<const std::byte*>(scales.data()));
}

void write_file(const HuggingFaceExport& model, const std::vector<Planned>& tensors,
                const std::string& path) {
  std::vector<SafetensorsSpec> specs;
  for (const Planned& plan : tensors) {
    specs.insert(specs.end(), plan.specs.begin(), plan.specs.end());
  }
  SafetensorsWriter writer(path, specs);
  for (const Planned& plan : tensors) {
    plan.blocks ? write_blocks(model, plan, writer) : write_plain(model, plan, writer);
  }
  writer.finish();
}

std::string index_text(const std::vector<std::vector<Planned>>& files) {
  nlohmann::ordered_json index;
  int64_t total = 0;
  std::map<std::string, std::string> map;
  for (size_t i = 0; i < files.size(); ++i) {
    for (const Planned& plan : files[i]) {
      total += plan.bytes();
      for (const SafetensorsSpec& spec : plan.specs) map[spec.name] = shard_name(i, files.size());
    }
  }
  index["metadata"]["total_size"] = total;
  index["weight_map"] = map;
  return index.dump(2) + "\n";
}

}  // namespace

void write_text_file(const std::string& path, const std::string& text) {
  DurableFile file(path, DurableFile::Mode::create);
  file.append(text);
  file.sync();
  file.close();
}

void save_hugging_face(const HuggingFaceExport& model, const std::string& folder) {
  check(model.config.dtype == Dtype::f32 || model.config.dtype == Dtype::bf16,
        "weights are exported as f32 or bf16");
  const std::vector<std::vector<Planned>> files =
      plan_files(plan_tensors(model.config), model.shard_bytes);
  for (size_t i = 0; i < files.size(); ++i) {
    write_file(model, files[i], cat(folder, "/", shard_name(i, files.size())));
  }
  if (files.size() > 1) {
    write_text_file(folder + "/model.safetensors.index.json", index_text(files));
  }
  write_text_file(folder + "/config.json", hugging_face_config_text(model.config));
  write_text_file(folder + "/generation_config.json",
                  generation_config_text(model.config, model.generation));
}

}  // namespace shoestring
