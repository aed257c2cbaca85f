// Lengths: files, functions, lines.

#include <gtest/gtest.h>

#include <algorithm>

#include "core/text.h"
#include "tests/support/source_tree.h"

namespace shoestring {
namespace {

constexpr size_t source_lines = 400, header_lines = 250, function_lines = 60, columns = 100;

// Characters of UTF-8 text: bytes that do not continue one.
size_t width_of(std::string_view line) {
  return static_cast<size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

TEST(Budgets, FilesAreShort) {
  Offences offences;
  for (const SourceFile& file : source_files()) {
    if (!file.is_code()) continue;
    size_t limit = file.is_header() ? header_lines : source_lines;
    if (file.lines.size() > limit) {
      offences.add(file, limit + 1, cat("has ", file.lines.size(), " lines, at most ", limit));
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

TEST(Budgets, LinesAreNarrow) {
  Offences offences;
  for (const SourceFile& file : source_files()) {
    if (!file.is_code() && !file.ends_with(".cmake") && !file.ends_with(".sh")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      size_t width = width_of(file.lines[i]);
      if (width > columns) offences.add(file, i + 1, cat("is ", width, " columns wide"));
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

// Does the statement that begins at this line define a function? It does when its head (up to the
// first line that ends with an opening brace) has parentheses and is no type, namespace or control
// statement.
bool begins_function(const SourceFile& file, size_t first) {
  std::string_view line = file.lines[first];
  line.remove_prefix(line.find_first_not_of(' '));
  for (std::string_view word :
       {"namespace", "struct ", "class ", "enum ", "union ", "extern \"", "if ", "for ", "while ",
        "switch ", "else", "do ", "try", "case ", "}", "//", "template "}) {
    if (line.starts_with(word)) return false;
  }
  std::string head;
  for (size_t i = first; i < file.lines.size(); ++i) {
    head += file.lines[i];
    if (head.ends_with(";")) return false;
    if (head.ends_with("{")) return head.find('(') != std::string::npos;
  }
  return false;
}

// The code is formatted, so a body ends with a brace as far to the right as its head begins.
TEST(Budgets, FunctionsAreShort) {
  Offences offences;
  size_t functions = 0;
  for (const SourceFile& file : source_files()) {
    if (!file.is_code()) continue;
    std::vector<size_t> last_at_indent(9, SIZE_MAX);
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      size_t indent = line.find_first_not_of(' ');
      if (indent == std::string::npos || indent > 8 || line[indent] == '#') continue;
      size_t first = last_at_indent[indent];
      last_at_indent[indent] = i;
      if (line.substr(indent) != "}" || first == SIZE_MAX || !begins_function(file, first))
        continue;
      ++functions;
      size_t length = i - first + 1;
      if (length > function_lines) {
        offences.add(file, first + 1, cat("function of ", length, " lines, at most 60"));
      }
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_GT(functions, 300u) << "finds too few functions to be right";
}

}  // namespace
}  // namespace shoestring
