#include "io/checkpoint_folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>

#include "core/check.h"
#include "core/text.h"
#include "io/durable_file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view replaced = ".old", deleted = ".deleted", temporary_end = ".tmp";

std::string name_of_step(int64_t step) {
  const std::string digits = cat(step);
  return cat("step_", std::string(digits.size() < 8 ? 8 - digits.size() : 0, '0'), digits);
}

// The step of "step_00001000", whatever its width; nothing for other names.
std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with("step_") || name.size() < 6 || name.size() > 5 + 18) return {};
  int64_t step = 0;
  for (char c : name.substr(5)) {
    if (c < '0' || c > '9') return {};
    step = step * 10 + (c - '0');
  }
  return name_of_step(step) == name ? std::optional(step) : std::nullopt;
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  return names;
}

// Exchanges two names at once; false where the file system cannot.
bool exchange(const std::string& a, const std::string& b) {
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
}

}  // namespace

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail_data(cat("cannot make the folder ", path, ": ", error.message()));
}

void sync_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_data(cat("cannot open the folder ", path, ": ", std::strerror(errno)));
  ::fsync(descriptor);  // some file systems refuse to sync folders
  ::close(descriptor);
}

void remove_folder(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
}

std::string CheckpointFolder::final_path(int64_t step) const {
  return cat(directory_, "/", name_of_step(step));
}

std::string CheckpointFolder::temporary_path(int64_t step, int64_t sequence) const {
  return cat(directory_, "/.", name_of_step(step), ".", sequence, temporary_end);
}

std::vector<int64_t> CheckpointFolder::steps() const {
  std::vector<int64_t> steps;
  for (const std::string& name : names_in(directory_)) {
    std::error_code error;
    const auto step = step_of(name);
    if (step && fs::is_directory(directory_ + "/" + name, error)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void CheckpointFolder::clean() const {
  for (const std::string& name : names_in(directory_)) {
    if (!name.starts_with(".step_")) continue;
    const std::string path = directory_ + "/" + name;
    if (name.ends_with(replaced)) {
      const std::string original =
          directory_ + "/" + name.substr(1, name.size() - 1 - replaced.size());
      if (!fs::exists(original)) {
        rename_durably(path, original);
        continue;
      }
    }
    if (name.ends_with(replaced) || name.ends_with(deleted) || name.ends_with(temporary_end)) {
      remove_folder(path);
    }
  }
}

void CheckpointFolder::commit(const std::string& temporary, int64_t step) const {
  sync_folder(temporary);
  const std::string path = final_path(step);
  if (!fs::exists(path)) return rename_durably(temporary, path);
  if (exchange(temporary, path)) {
    sync_folder(directory_);
    return remove_folder(temporary);
  }
  const std::string old = cat(directory_, "/.", name_of_step(step), replaced);
  remove_folder(old);
  rename_durably(path, old);
  rename_durably(temporary, path);
  remove_folder(old);
}

void CheckpointFolder::discard(int64_t step) const {
  const std::string path = cat(directory_, "/.", name_of_step(step), deleted);
  remove_folder(path);
  rename_durably(final_path(step), path);
  remove_folder(path);
}

bool CheckpointFolder::has_manifest(int64_t step) const {
  std::error_code error;
  return fs::exists(final_path(step) + "/manifest.json", error);
}

void CheckpointFolder::retain(int64_t latest, int64_t keep, int64_t keep_every,
                              const std::vector<int64_t>& passed_over) const {
  std::vector<int64_t> list = steps();
  std::erase(list, latest);
  int64_t left = std::max<int64_t>(keep, 1) - 1;
  for (auto at = list.rbegin(); at != list.rend(); ++at) {
    if (left > 0) {
      const bool good = has_manifest(*at) &&
                        std::find(passed_over.begin(), passed_over.end(), *at) == passed_over.end();
      left -= good ? 1 : 0;
      continue;
    }
    if (keep_every > 0 && *at % keep_every == 0) continue;
    discard(*at);
  }
}

}  // namespace shoestring
