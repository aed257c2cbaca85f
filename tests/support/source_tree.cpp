#include "tests/support/source_tree.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

std::string output_of(const std::string& command) {
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) fail(cat("cannot run: ", command));
  std::string text;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  if (::pclose(pipe) != 0) fail(cat("failed: ", command));
  return text;
}

}  // namespace

std::vector<SourceFile> source_files() {
  std::string root = SHOESTRING_SOURCE_DIR;
  // The tree may belong to another user than the one who tests it.
  std::string git =
      cat("git -c safe.directory='*' -C '", root, "' ls-files -co --exclude-standard");
  std::istringstream paths(output_of(git));
  std::vector<SourceFile> files;
  for (std::string path; std::getline(paths, path);) {
    std::ifstream stream(root + "/" + path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    if (!stream || text.find('\0') != std::string::npos) continue;  // deleted, or not text
    files.push_back(file_of(path, text));
  }
  std::sort(files.begin(), files.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  if (files.empty()) fail(cat("no files found: ", git));
  return files;
}

SourceFile file_of(std::string path, std::string_view text) {
  SourceFile file{.path = std::move(path), .lines = {}};
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) file.lines.push_back(line);
  return file;
}

std::vector<Include> includes_of(const SourceFile& file) {
  std::vector<Include> includes;
  for (size_t i = 0; i < file.lines.size(); ++i) {
    std::string_view line = file.lines[i];
    if (!line.starts_with("#include ")) continue;
    size_t begin = line.find_first_of("<\""), end = line.find_first_of(">\"", begin + 1);
    if (begin == std::string_view::npos || end == std::string_view::npos) continue;
    includes.push_back(
        {std::string(line.substr(begin + 1, end - begin - 1)), static_cast<int>(i) + 1});
  }
  return includes;
}

void Offences::add(const SourceFile& file, size_t line, std::string_view message) {
  append(text_, file.path, ":", line, ": ", message, "\n");
}

}  // namespace shoestring
