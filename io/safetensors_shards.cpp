#include "io/safetensors_shards.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <utility>

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

// Hands out the pairs of "weight_map" one by one, so that an index may name what it likes: memory
// goes to what its files hold.
class IndexReader : public nlohmann::json_sax<Json> {
 public:
  using Take = std::function<void(const std::string& tensor, const std::string& file)>;
  IndexReader(std::string_view text, const std::string& path, Take take)
      : text_(text), path_(path), take_(std::move(take)) {}

  void read() {
    Json::sax_parse(text_.begin(), text_.end(), this);
    if (!met_) fail_data(cat(path_, ": no object \"weight_map\" of tensors and files"));
  }

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return other(); }
  bool number_unsigned(number_unsigned_t) override { return other(); }
  bool number_float(number_float_t, const string_t&) override { return other(); }
  bool binary(binary_t&) override { return other(); }
  bool string(string_t& file) override {
    if (!inside_ || depth_ != 2) return other();
    take_(key_, file);
    return true;
  }
  bool start_object(size_t) override {
    const bool map = depth_ == 1 && key_ == "weight_map";
    if (map && std::exchange(met_, true)) fail_data(cat(path_, ": \"weight_map\" is there twice"));
    if (!map) other();
    inside_ = inside_ || map;
    return open();
  }
  bool end_object() override {
    if (--depth_ == 1) inside_ = false;
    return true;
  }
  bool start_array(size_t) override { return other() && open(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ == 1 || inside_) key_ = name;
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    fail_json(text_, path_, position, error.id);
  }

 private:
  // A value that is no file of a tensor.
  bool other() const {
    if (inside_) fail_data(cat(path_, ": the file of ", key_, " is not a text"));
    return true;
  }
  bool open() {
    constexpr int deepest = 64;
    if (++depth_ > deepest) fail_data(cat(path_, ": nested deeper than ", deepest, " brackets"));
    return true;
  }

  std::string_view text_;
  const std::string& path_;
  Take take_;
  std::string key_;
  int depth_ = 0;
  bool inside_ = false, met_ = false;  // weight_map: in it, and seen
};

// The first lines of a list for a message, however long it is.
class FirstLines {
 public:
  void add(const std::function<std::string()>& line) {
    if (++count_ <= most) lines_.push_back(line());
  }
  bool empty() const { return count_ == 0; }
  std::string text() const {
    const std::string more = count_ > most ? cat("\n  and ", count_ - most, " more") : "";
    return listed(lines_, most) + more;
  }

 private:
  static constexpr size_t most = 20;
  std::vector<std::string> lines_;
  size_t count_ = 0;
};

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
  FirstLines missing, unnamed;
  const std::string text = read_small_file(index, index_limit);
  IndexReader(text, index, [&](const std::string& tensor, const std::string& name) {
    auto at = files_.find(name);
    if (at == files_.end()) {
      check_file_name(name, index);
      at = files_.emplace(name, std::make_unique<SafetensorsFile>(cat(folder_, "/", name))).first;
    }
    if (!at->second->has(tensor)) {
      missing.add([&] { return cat(tensor, " in ", name); });
    } else if (!file_of_.emplace(tensor, at->second.get()).second) {
      fail_data(cat(index, ": an object has the key \"", tensor, "\" twice"));
    }
  }).read();
  if (files_.empty()) fail_data(cat(index, ": \"weight_map\" is empty"));
  for (const auto& [name, file] : files_) {
    for (const SafetensorsEntry& e : file->header().tensors) {
      const auto at = file_of_.find(e.name);
      if (at != file_of_.end() && at->second == file.get()) continue;
      unnamed.add([&, of = std::string_view(name)] { return cat(e.name, " in ", of); });
    }
  }
  if (!missing.empty()) {
    fail_data(cat(index, " names tensors that are not in their files:", missing.text()));
  }
  if (!unnamed.empty()) {
    fail_data(cat(index, " does not name these tensors of its files:", unnamed.text()));
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
