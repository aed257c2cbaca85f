#pragma once
// The weights of one folder: model.safetensors, or the files that model.safetensors.index.json
// names, read as if they were one file.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace shoestring {

class SafetensorsShards {
 public:
  // Data errors: no such file, a broken header, an index that does not agree with the files.
  explicit SafetensorsShards(const std::string& folder);

  const std::string& folder() const { return folder_; }
  std::vector<std::string> names() const;  // sorted
  bool has(const std::string& name) const { return file_of_.contains(name); }
  const SafetensorsEntry& entry(const std::string& name) const;  // data error when it is missing
  // Elements [begin, end) as SafetensorsFile reads them; afterwards their pages are let go, so that
  // a model larger than the memory can be read.
  void read(const std::string& name, int64_t begin, int64_t end, Dtype to, std::byte* out) const;

 private:
  const SafetensorsFile& file(const std::string& name) const;
  void open_all(const std::string& index);

  std::string folder_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;  // by name in the folder
  std::map<std::string, const SafetensorsFile*> file_of_;          // by tensor
};

// "model-00002-of-00011.safetensors"; of one file, "model.safetensors".
std::string shard_name(size_t index, size_t count);

// A list for a message: at most `most` lines, indented, then how many more there are.
std::string listed(const std::vector<std::string>& lines, size_t most = 20);

}  // namespace shoestring
