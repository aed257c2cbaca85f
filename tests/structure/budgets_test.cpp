// Lengths: files, functions, lines, lists of parameters, and how much is explained. Every rule is
// tried on an example that breaks it.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "core/text.h"
#include "tests/support/source_tree.h"

namespace shoestring {
namespace {

constexpr size_t source_lines = 400, header_lines = 250, function_lines = 60, columns = 100;
constexpr int most_parameters = 5;

std::string repeated(std::string_view line, size_t times) {
  std::string text;
  for (size_t i = 0; i < times; ++i) append(text, line, "\n");
  return text;
}

Offences long_files(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_code()) continue;
    size_t limit = file.is_header() ? header_lines : source_lines;
    if (file.lines.size() > limit) {
      offences.add(file, limit + 1, cat("has ", file.lines.size(), " lines, at most ", limit));
    }
  }
  return offences;
}

TEST(Budgets, FilesAreShort) {
  const Offences offences = long_files(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_TRUE(long_files({file_of("core/a.cpp", repeated("x", 400))}).empty());
  EXPECT_FALSE(long_files({file_of("core/a.cpp", repeated("x", 401))}).empty());
  EXPECT_FALSE(long_files({file_of("core/a.h", repeated("x", 251))}).empty());
}

// Characters of UTF-8 text: bytes that do not continue one.
size_t width_of(std::string_view line) {
  return static_cast<size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

Offences wide_lines(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_code() && !file.ends_with(".cmake") && !file.ends_with(".sh")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      size_t width = width_of(file.lines[i]);
      if (width > columns) offences.add(file, i + 1, cat("is ", width, " columns wide"));
    }
  }
  return offences;
}

TEST(Budgets, LinesAreNarrow) {
  const Offences offences = wide_lines(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(wide_lines({file_of("core/a.cpp", std::string(101, 'x'))}).empty());
  EXPECT_TRUE(wide_lines({file_of("core/a.cpp", std::string(99, 'x') + "\u00e9")}).empty());
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
Offences long_functions(const SourceFiles& files, size_t& functions) {
  Offences offences;
  for (const SourceFile& file : files) {
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
  return offences;
}

TEST(Budgets, FunctionsAreShort) {
  size_t functions = 0, one = 0;
  const Offences offences = long_functions(source_files(), functions);
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_GT(functions, 300u) << "finds too few functions to be right";
  auto example = [](size_t lines) {
    return file_of("core/a.cpp", "int f(int x) {\n" + repeated("  ++x;", lines - 2) + "}\n");
  };
  EXPECT_TRUE(long_functions({example(60)}, one).empty());
  EXPECT_FALSE(long_functions({example(61)}, one).empty());
  EXPECT_EQ(one, 2u);
}

// The parameters of a list without a default, the list being what stands between its parentheses.
int count_parameters(std::string_view list) {
  int depth = 0, count = 0;
  bool text = false, defaulted = false;
  auto end = [&] {
    count += text && !defaulted;
    text = defaulted = false;
  };
  for (char c : list) {
    if (c == '(' || c == '<' || c == '[' || c == '{') ++depth;
    if (c == ')' || c == '>' || c == ']' || c == '}') --depth;
    if (c == ',' && depth == 0) {
      end();
      continue;
    }
    text |= c != ' ';
    defaulted |= c == '=' && depth == 0;
  }
  end();
  return count;
}

// The declarations of a header, each on one line.
std::vector<std::pair<size_t, std::string>> statements_of(const SourceFile& file) {
  std::vector<std::pair<size_t, std::string>> statements;
  std::string open;
  for (size_t i = 0; i < file.lines.size(); ++i) {
    std::string_view line = file.lines[i];
    line = line.substr(0, line.find("//"));
    const size_t begin = line.find_first_not_of(' ');
    if (begin == std::string_view::npos || line[0] == '#') continue;
    append(open, open.empty() ? "" : " ", line.substr(begin));
    if (open.find_last_of(";{}:") != open.find_last_not_of(' ')) continue;
    statements.emplace_back(i, std::move(open));
    open.clear();
  }
  return statements;
}

// Does the statement declare a function, with parameters from `open` on, that could have fewer? A
// concept or a seam fixes the parameters of some: each op declares those alike.
bool declares_own_function(std::string_view statement, size_t open) {
  const std::string_view head = statement.substr(0, open);
  if (head.empty() || head.find_first_of("={") != std::string_view::npos) return false;
  for (std::string_view word : {"requires", "return", "::grad_", "::forward"}) {
    if (head.find(word) != std::string_view::npos) return false;
  }
  const auto last = static_cast<unsigned char>(head.back());
  if (!std::isalnum(last) && last != '_') return false;
  const bool constructor = std::isupper(static_cast<unsigned char>(head.front())) != 0;
  if (head.find(' ') == std::string_view::npos && !constructor) return false;
  for (std::string_view name : {" forward", " grad_input", " grad_weight", "Value run"}) {
    if (head.ends_with(name)) return false;
  }
  return true;
}

Offences long_parameter_lists(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_header() || file.folder() == "tests" || file.ends_with("-inl.h")) continue;
    for (const auto& [line, statement] : statements_of(file)) {
      const size_t open = statement.find('(');
      if (open == std::string::npos || !declares_own_function(statement, open)) continue;
      size_t end = open;
      for (int depth = 0; end < statement.size(); ++end) {
        depth += statement[end] == '(' ? 1 : statement[end] == ')' ? -1 : 0;
        if (depth == 0) break;
      }
      const int count =
          count_parameters(std::string_view(statement).substr(open + 1, end - open - 1));
      if (count > most_parameters) {
        offences.add(file, line + 1, cat(count, " parameters, at most 5: ", statement));
      }
    }
  }
  return offences;
}

TEST(Budgets, ParameterListsAreShort) {
  const Offences offences = long_parameter_lists(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  auto finds = [](std::string_view text) {
    return !long_parameter_lists({file_of("core/a.h", text)}).empty();
  };
  EXPECT_TRUE(finds("void f(int a, int b, int c,\n       int d, int e, int g);\n"));
  EXPECT_FALSE(finds("void f(std::map<int, int> a, int b, int c, int d, int e, int g = 1);\n"));
  EXPECT_FALSE(finds("void f(int (*a)(int, int), int b, int c, int d, int e);\n"));
}

// What a header offers and what a file is for stands at its top, below the guard.
Offences unexplained_headers(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_header() || file.ends_with("-inl.h")) continue;
    if (file.lines.size() < 2 || !file.lines[1].starts_with("// ")) {
      offences.add(file, 2, "does not begin with what it is for");
    }
  }
  return offences;
}

TEST(Budgets, HeadersSayWhatTheyAreFor) {
  const Offences offences = unexplained_headers(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(unexplained_headers({file_of("io/a.h", "#pragma once\n#include <map>\n")}).empty());
}

// Lines with a comment over lines with anything, folder by folder: contracts and reasons, not a
// second copy of the code.
Offences badly_explained_folders(const SourceFiles& files) {
  struct Count {
    double lines = 0, comments = 0;
    const SourceFile* first = nullptr;
  };
  std::map<std::string, Count> folders;
  for (const SourceFile& file : files) {
    if (!file.is_code() || file.folder() == "tests") continue;
    Count& count = folders[file.folder()];
    count.first = count.first ? count.first : &file;
    for (const std::string& line : file.lines) {
      count.lines += line.empty() ? 0 : 1;
      count.comments += line.find("//") == std::string::npos ? 0 : 1;
    }
  }
  Offences offences;
  for (const auto& [folder, count] : folders) {
    const double share = count.comments / count.lines;
    if (share < 0.08 || share > 0.2) {
      offences.add(*count.first, 1,
                   cat(100 * share, "% of the lines of ", folder, " are comments"));
    }
  }
  return offences;
}

TEST(Budgets, CommentsAreNeitherFewNorMany) {
  const Offences offences = badly_explained_folders(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(badly_explained_folders({file_of("io/a.h", repeated("int x;", 20))}).empty());
  EXPECT_FALSE(badly_explained_folders({file_of("io/a.h", repeated("// int x", 20))}).empty());
}

}  // namespace
}  // namespace shoestring
