#pragma once
// The repository's own files as lines of text, for tests of its structure.

#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

struct SourceFile {
  std::string path;  // "core/ops/linear.cpp"
  std::vector<std::string> lines;

  std::string folder() const { return path.substr(0, path.find('/')); }  // "core"
  std::string name() const { return path.substr(path.rfind('/') + 1); }  // "linear.cpp"
  std::string stem() const { return name().substr(0, name().rfind('.')); }
  bool ends_with(std::string_view suffix) const { return path.ends_with(suffix); }
  bool is_header() const { return ends_with(".h") || ends_with(".cuh"); }
  bool is_source() const { return ends_with(".cpp") || ends_with(".cu"); }
  bool is_code() const { return is_header() || is_source(); }
};

// Every text file that git tracks or would track, sorted by path. Files with a zero byte are left
// out. Throws when git cannot be run.
std::vector<SourceFile> source_files();

using SourceFiles = std::vector<SourceFile>;

// A file that is not there, to try a rule on.
SourceFile file_of(std::string path, std::string_view text);

// What the file includes: {"core/check.h", line 7}. Angle brackets and quotes alike.
struct Include {
  std::string path;
  int line;
};
std::vector<Include> includes_of(const SourceFile& file);

// "core/check.cpp:12: it is too long", gathered and reported together.
class Offences {
 public:
  void add(const SourceFile& file, size_t line, std::string_view message);
  bool empty() const { return text_.empty(); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace shoestring
