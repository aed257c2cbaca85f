#include "io/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "core/log.h"
#include "core/text.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

constexpr size_t most_gaps = 5;  // that a message lists

// Those between 1 and `last` that are not among `steps`.
std::string text_of_missing(std::vector<int64_t> steps, int64_t last) {
  std::sort(steps.begin(), steps.end());
  steps.push_back(last + 1);
  std::string text;
  int64_t next = 1;
  size_t gaps = 0;
  for (int64_t step : steps) {
    if (step > next && ++gaps <= most_gaps) {
      append(text, text.empty() ? "" : ", ", next);
      if (step - 1 > next) append(text, " to ", step - 1);
    }
    next = std::max(next, step + 1);
  }
  if (gaps > most_gaps) append(text, " and ", gaps - most_gaps, " more gaps");
  return text;
}

struct Kept {
  std::string lines, missing;
};
// The lines up to and including `last_step`. What follows the last line feed was torn by a crash.
Kept kept_lines(const std::string& path, int64_t last_step) {
  std::ifstream in(path, std::ios::binary);
  std::string line;
  std::vector<int64_t> steps;
  Kept kept;
  for (int64_t number = 1; std::getline(in, line) && !in.eof(); ++number) {
    const auto object = nlohmann::json::parse(line, nullptr, false);
    if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) {
      log_warning(cat(path, ", line ", number, ": no record of a step; it is left out"));
      continue;
    }
    const int64_t step = object["step"].get<int64_t>();
    if (step > last_step) continue;
    append(kept.lines, line, "\n");
    steps.push_back(step);
  }
  kept.missing = text_of_missing(std::move(steps), last_step);
  return kept;
}

void write_all(int file, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(file, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_data(cat(path, ": cannot be written: ", std::strerror(errno)));
    text.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

std::string MetricsRecord::json() const {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [name, value] : items_) {
    std::visit(
        [&, key = name](const auto& x) {
          using T = std::decay_t<decltype(x)>;
          if constexpr (std::is_same_v<T, double>) {
            if (!std::isfinite(x)) {
              object[key] = nullptr;
              return;
            }
          }
          object[key] = x;
        },
        value);
  }
  // A generated text may end inside a character.
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

MetricsWriter::MetricsWriter(const std::string& path, int64_t last_step,
                             const MetricsRecord* replacement)
    : path_(path) {
  Kept kept;
  if (last_step >= 0) kept = kept_lines(path, last_step);
  missing_ = std::move(kept.missing);
  if (replacement) append(kept.lines, replacement->json(), "\n");
  // The shortened file replaces the old one in one step: a crash here loses nothing.
  const std::string temporary = path + ".new";
  file_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0) fail_data(cat(temporary, ": cannot be created: ", std::strerror(errno)));
  write_all(file_, kept.lines, temporary);
  if (::fsync(file_) != 0 || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    ::close(file_);
    fail_data(cat(path, ": cannot be replaced: ", reason));
  }
}

MetricsWriter::~MetricsWriter() {
  if (file_ >= 0) ::close(file_);
}

void MetricsWriter::write(const MetricsRecord& record) {
  write_all(file_, record.json() + "\n", path_);
}

void MetricsWriter::sync() {
  if (::fdatasync(file_) != 0 && errno != EINVAL) {  // some file systems know no syncing
    fail_data(cat(path_, ": cannot be brought to the disk: ", std::strerror(errno)));
  }
}

}  // namespace shoestring
