#include "io/safetensors_shards.h"

#include <algorithm>
#include <filesystem>

#include "core/check.h"
#include "core/text.h"
#include "io/json_check.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr uint64_t index_limit = uint64_t{1} << 28;
constexpr const char* single_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";

[[noreturn]] void fail_without_weights(const std::string& folder) {
  std::string other;
  std::vector<std::string> shards;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string extension = at->path().extension().string();
    if (extension == ".bin" || extension == ".pth" || extension == ".pt") {
      other = cat("; it holds ", at->path().filename().string(),
                  ", but only safetensors are read: save the model as these first");
    } else if (extension == ".safetensors") {
      shards.push_back(at->path().filename().string());
    }
  }
  if (!shards.empty()) {
    std::sort(shards.begin(), shards.end());
    other = cat("; it holds ", shards.front(),
                shards.size() > 1 ? cat(" and ", shards.size() - 1, " more") : "",
                ": of several files the index says which tensors they hold, so get ", index_name,
                " from where they came; one file alone must be called ", single_name);
  }
  fail_data(cat(folder, " holds neither ", single_name, " nor ", index_name, other));
}

// A file beside the index, not anywhere on the disk.
void check_file_name(const std::string& name, const std::string& index) {
  if (name.empty() || name.find('/') != std::string::npos || name.find('\0') != std::string::npos ||
      !name.ends_with(".safetensors")) {
    fail_data(cat(index, ": \"", name, "\" is not the name of a safetensors file in that folder"));
  }
}

// Tensor -> file.
std::map<std::string, std::string> read_index(const std::string& path) {
  const std::string text = read_small_file(path, index_limit);
  check_json_object(text, path);
  const Json json = Json::parse(text, nullptr, false);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) {
    fail_data(cat(path, ": no object \"weight_map\" of tensors and files"));
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) fail_data(cat(path, ": the file of ", tensor, " is not a text"));
    check_file_name(file.get<std::string>(), path);
    files[tensor] = file.get<std::string>();
  }
  if (files.empty()) fail_data(cat(path, ": \"weight_map\" is empty"));
  return files;
}

}  // namespace

std::string shard_name(size_t index, size_t count) {
  if (count == 1) return single_name;
  auto digits = [](size_t n) {
    const std::string text = cat(n);
    return std::string(text.size() < 5 ? 5 - text.size() : 0, '0') + text;
  };
  return cat("model-", digits(index + 1), "-of-", digits(count), ".safetensors");
}

std::string listed(const std::vector<std::string>& lines, size_t most) {
  std::string text;
  for (size_t i = 0; i < std::min(lines.size(), most); ++i) append(text, "\n  ", lines[i]);
  if (lines.size() > most) append(text, "\n  and ", lines.size() - most, " more");
  return text;
}

SafetensorsShards::SafetensorsShards(const std::string& folder) : folder_(folder) {
  // Of a folder with both, loaders take the single file.
  if (fs::exists(fs::path(folder) / single_name)) {
    auto file = std::make_unique<SafetensorsFile>(cat(folder, "/", single_name));
    for (const SafetensorsEntry& e : file->header().tensors) file_of_[e.name] = file.get();
    files_[single_name] = std::move(file);
  } else if (fs::exists(fs::path(folder) / index_name)) {
    open_all(cat(folder, "/", index_name));
  } else {
    fail_without_weights(folder);
  }
}

void SafetensorsShards::open_all(const std::string& index) {
  const std::map<std::string, std::string> map = read_index(index);
  std::vector<std::string> missing, unnamed;
  for (const auto& [tensor, name] : map) {
    std::unique_ptr<SafetensorsFile>& file = files_[name];
    if (!file) file = std::make_unique<SafetensorsFile>(cat(folder_, "/", name));
    if (!file->has(tensor)) missing.push_back(cat(tensor, " in ", name));
    file_of_[tensor] = file.get();
  }
  for (const auto& [name, file] : files_) {
    for (const SafetensorsEntry& e : file->header().tensors) {
      const auto at = map.find(e.name);
      if (at == map.end() || at->second != name) unnamed.push_back(cat(e.name, " in ", name));
    }
  }
  if (!missing.empty()) {
    fail_data(cat(index, " names tensors that are not in their files:", listed(missing)));
  }
  if (!unnamed.empty()) {
    fail_data(cat(index, " does not name these tensors of its files:", listed(unnamed)));
  }
}

std::vector<std::string> SafetensorsShards::names() const {
  std::vector<std::string> list;
  for (const auto& [name, file] : file_of_) list.push_back(name);
  return list;
}

const SafetensorsFile& SafetensorsShards::file(const std::string& name) const {
  const auto at = file_of_.find(name);
  if (at == file_of_.end()) fail_data(cat(folder_, " holds no tensor ", name));
  return *at->second;
}

const SafetensorsEntry& SafetensorsShards::entry(const std::string& name) const {
  return file(name).entry(name);
}

void SafetensorsShards::read(const std::string& name, int64_t begin, int64_t end, Dtype to,
                             std::byte* out) const {
  const SafetensorsFile& from = file(name);
  from.read(name, begin, end, to, out);
  from.release(from.entry(name), begin, end);
}

}  // namespace shoestring
