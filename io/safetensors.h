#pragma once
// safetensors files, the format of published weights: a JSON header with each tensor's type, shape
// and byte range, then the bytes. The reader takes nothing on trust; the writer's files are equal,
// byte for byte, to those of the format's reference library.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "io/durable_file.h"

namespace shoestring {

struct SafetensorsEntry {
  std::string name;
  std::string type;            // as in the file: "BF16"
  std::optional<Dtype> dtype;  // nothing: a type of the format that no tensor of ours has
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, from the start of the data

  int64_t elements() const;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsEntry> tensors;  // in the order of their bytes
};

// `json` is the header's text, `data_bytes` what follows it. Data errors name `path` and the
// tensor: malformed JSON, a duplicate key, an unknown type, sizes that do not fit, tensors that
// overlap or leave a hole.
SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t data_bytes,
                                           const std::string& path);

// A file mapped into memory; tensors are read when they are asked for.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }
  bool has(const std::string& name) const { return index_.contains(name); }
  const SafetensorsEntry& entry(const std::string& name) const;  // data error when it is missing
  // The stored bytes, not aligned.
  const std::byte* data(const SafetensorsEntry& entry) const;
  // Elements [begin, end) in their own type, or any float type as f32 or bf16.
  void read(const std::string& name, int64_t begin, int64_t end, Dtype to, std::byte* out) const;
  // Takes these elements' pages out of memory; they come back when they are read again.
  void release(const SafetensorsEntry& entry, int64_t begin, int64_t end) const;

 private:
  std::string path_;
  MappedFile map_;
  SafetensorsHeader header_;
  uint64_t data_at_ = 0;
  std::map<std::string, size_t> index_;
};

struct SafetensorsSpec {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
};

// Writes under a temporary name, part by part in any order; the file appears with finish().
class SafetensorsWriter {
 public:
  // `metadata` gets "format": "pt" unless it has a format, because loaders ask for it.
  SafetensorsWriter(const std::string& path, const std::vector<SafetensorsSpec>& tensors,
                    std::map<std::string, std::string> metadata = {});
  // `count` elements of the tensor from element `begin` on.
  void write(const std::string& name, int64_t begin, int64_t count, const std::byte* data);
  void finish();  // fails when an element of a tensor has not been written

 private:
  std::string path_;
  RemoveOnExit remove_;  // after file_ is closed
  DurableFile file_;
  uint64_t data_at_ = 0;
  std::map<std::string, SafetensorsEntry> entries_;
  std::map<std::string, int64_t> missing_;  // elements not yet written
};

}  // namespace shoestring
