#pragma once
// Folders of small models whose weights are a function of their names.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "io/hugging_face/names.h"
#include "io/hugging_face/save.h"
#include "tests/io/hugging_face/config_fixture.h"
#include "tests/io/store_fixture.h"

namespace shoestring {

// Element i of a parameter: exact in bf16.
inline float weight_at(const std::string& parameter, int64_t i) {
  uint64_t hash = std::hash<std::string>()(parameter) + static_cast<uint64_t>(i);
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>(static_cast<int64_t>(hash >> 57) - 64) / 32;
}

inline void read_weights(const std::string& parameter, int64_t begin, int64_t end, float* out) {
  for (int64_t i = begin; i < end; ++i) out[i - begin] = weight_at(parameter, i);
}

inline HuggingFaceExport small_export(ModelFamily family) {
  return {.config = {.family = family,
                     .model = small_models().at(family),
                     .dtype = Dtype::bf16,
                     .begin_ids = {1},
                     .end_ids = {2}},
          .read = read_weights};
}

// FP8 as of a folder that was read so: every matrix has codes, in blocks that may be cut.
inline void make_coded(HuggingFaceConfig& config) {
  config.blocks = {.rows = 16, .columns = 16};
  for (const FolderTensor& t : folder_tensors(config.family, config.model)) {
    if (t.quantised) config.coded.insert(t.parameter);
  }
}

struct RawTensor {
  SafetensorsSpec spec;
  std::vector<std::byte> bytes = {};
};

// The tensors of a single-file folder.
inline std::vector<RawTensor> raw_tensors(const std::string& folder) {
  std::vector<RawTensor> tensors;
  const SafetensorsFile file(folder + "/model.safetensors");
  for (const SafetensorsEntry& e : file.header().tensors) {
    tensors.push_back({.spec = {.name = e.name, .dtype = *e.dtype, .shape = e.shape},
                       .bytes = {file.data(e), file.data(e) + (e.end - e.begin)}});
  }
  return tensors;
}

inline void write_raw_tensors(const std::string& folder, const std::vector<RawTensor>& tensors) {
  std::vector<SafetensorsSpec> specs;
  for (const RawTensor& t : tensors) specs.push_back(t.spec);
  SafetensorsWriter writer(folder + "/model.safetensors", specs);
  for (const RawTensor& t : tensors) {
    writer.write(t.spec.name, 0, static_cast<int64_t>(t.bytes.size() / size_of(t.spec.dtype)),
                 t.bytes.data());
  }
  writer.finish();
}

// Replaces the tensors of a single-file folder: those in `drop` go, those in `add` come (f32 ones).
inline void edit_tensors(const std::string& folder, const std::set<std::string>& drop,
                         const std::map<std::string, std::vector<int64_t>>& add) {
  std::vector<RawTensor> tensors = raw_tensors(folder);
  std::erase_if(tensors, [&](const RawTensor& t) { return drop.contains(t.spec.name); });
  for (const auto& [name, shape] : add) {
    int64_t count = 1;
    for (int64_t dim : shape) count *= dim;
    tensors.push_back({.spec = {.name = name, .dtype = Dtype::f32, .shape = shape},
                       .bytes = std::vector<std::byte>(static_cast<size_t>(count) * 4)});
  }
  write_raw_tensors(folder, tensors);
}

// Writes one element of a tensor of a single-file folder, of the tensor's type.
template <class T>
inline void write_element(const std::string& folder, const std::string& tensor, int64_t element,
                          T value) {
  const std::string path = folder + "/model.safetensors";
  uint64_t offset = 0;
  {
    const SafetensorsFile file(path);
    const SafetensorsEntry& entry = file.entry(tensor);
    const uint64_t all = std::filesystem::file_size(path);
    uint64_t last = 0;  // the data ends the file
    for (const SafetensorsEntry& e : file.header().tensors) last = std::max(last, e.end);
    offset = all - last + entry.begin + static_cast<uint64_t>(element) * sizeof(T);
    EXPECT_LE(offset + sizeof(T), all - last + entry.end);
  }
  std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
  out.seekp(static_cast<std::streamoff>(offset));
  out.write(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace shoestring
