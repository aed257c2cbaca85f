#include "launcher/earlier_output.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "io/checkpoint_folder.h"
#include "io/checkpoint_manifest.h"
#include "io/durable_file.h"
#include "launcher/import_command.h"
#include "launcher/model_card.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t card_limit = uint64_t{1} << 20, manifest_limit = uint64_t{1} << 28;

// Sorted, so that messages do not depend on the disk.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> list;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    list.push_back(at->path());
  }
  std::sort(list.begin(), list.end());
  return list;
}

bool is_plain_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(fs::symlink_status(path, error));
}

// model.safetensors and model-00001-of-00003.safetensors.
bool is_weights(const std::string& name) {
  constexpr std::string_view shard = "model-00000-of-00000.safetensors";
  if (name == "model.safetensors") return true;
  return name.size() == shard.size() &&
         std::equal(name.begin(), name.end(), shard.begin(), [](char is, char wanted) {
           return wanted == '0' ? is >= '0' && is <= '9' : is == wanted;
         });
}

bool is_exported(const std::string& name) {
  static const std::set<std::string> names = {"config.json",         "generation_config.json",
                                              "README.md",           "model.safetensors.index.json",
                                              "tokenizer.json",      "tokenizer_config.json",
                                              "chat_template.jinja", "special_tokens_map.json",
                                              "tokenizer.model"};
  return names.contains(name) || is_weights(name);
}

bool is_imported(const std::string& name) {
  const auto& files = tokenizer_file_names();
  return name == "config.toml" || std::find(files.begin(), files.end(), name) != files.end();
}

std::string strange(const fs::path& file, std::string_view command) {
  return cat("holds ", file.filename().string(), ", which ", command, " does not write");
}

// The first of the files that was written after the one that the command writes last.
std::string why_changed(const std::vector<fs::path>& files, const fs::path& last) {
  std::error_code error;
  const fs::file_time_type end = fs::last_write_time(last, error);
  for (const fs::path& file : files) {
    if (fs::last_write_time(file, error) <= end && !error) continue;
    return cat("holds ", file.filename().string(), ", which was changed since it was written");
  }
  return "";
}

std::string text_of(const fs::path& path, uint64_t limit) {
  try {
    return read_small_file(path.string(), limit);
  } catch (const Error&) {  // too large, or not there: none of ours
    return "";
  }
}

// The files of the one checkpoint that an import makes, or why it is none.
std::string take_imported(const fs::path& checkpoints, std::vector<fs::path>& files) {
  const fs::path folder = CheckpointFolder(checkpoints.string()).final_path(0);
  for (const fs::path& entry : entries_of(checkpoints)) {
    if (entry != folder) return cat("holds checkpoints/", entry.filename().string(), " of a run");
  }
  const std::string path = (folder / "manifest.json").string();
  std::set<std::string> known = {"manifest.json"};
  try {
    const Manifest manifest = parse_manifest(read_small_file(path, manifest_limit), path);
    const auto facts = nlohmann::json::parse(manifest.state, nullptr, false);
    if (!facts.is_object() || !facts.contains("imported_from")) {
      return "holds the checkpoint of a run";
    }
    for (const StoredFile& file : manifest.files) known.insert(file.name);
  } catch (const Error& error) {
    return cat("holds a checkpoint that cannot be read (", error.what(), ")");
  }
  for (const fs::path& entry : entries_of(folder)) {
    if (!known.contains(entry.filename().string())) return strange(entry, "import");
    files.push_back(entry);
  }
  return "";
}

}  // namespace

std::string why_no_export(const std::string& folder) {
  const std::vector<fs::path> files = entries_of(folder);
  for (const fs::path& file : files) {
    if (!is_plain_file(file) || !is_exported(file.filename().string())) {
      return strange(file, "export");
    }
  }
  const fs::path card = fs::path(folder) / "README.md";
  if (text_of(card, card_limit).find(card_mark) == std::string::npos) {
    return "holds no README.md of an export";
  }
  return why_changed(files, card);
}

std::string why_no_import(const std::string& folder) {
  const fs::path checkpoints = fs::path(folder) / "checkpoints";
  std::vector<fs::path> files;
  for (const fs::path& entry : entries_of(folder)) {
    if (entry == checkpoints) continue;
    if (!is_plain_file(entry) || !is_imported(entry.filename().string())) {
      return strange(entry, "import");
    }
    files.push_back(entry);
  }
  const std::string reason = take_imported(checkpoints, files);
  if (!reason.empty()) return reason;
  const std::string first = CheckpointFolder(checkpoints.string()).final_path(0);
  return why_changed(files, fs::path(first) / "manifest.json");
}

}  // namespace shoestring
