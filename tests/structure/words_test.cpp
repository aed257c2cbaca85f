// What must not be written anywhere, and what only certain files may write. Every rule is tried on
// an example that breaks it.

#include <gtest/gtest.h>

#include <cctype>
#include <set>

#include "core/text.h"
#include "tests/support/source_tree.h"

namespace shoestring {
namespace {

// Is `word` in the line with no letter, digit or _ beside it?
bool has_word(std::string_view line, std::string_view word) {
  auto is_part = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  for (size_t at = line.find(word); at != std::string_view::npos; at = line.find(word, at + 1)) {
    bool left = at > 0 && is_part(word.front()) && is_part(line[at - 1]);
    size_t end = at + word.size();
    bool right = end < line.size() && is_part(word.back()) && is_part(line[end]);
    if (!left && !right) return true;
  }
  return false;
}

struct Rule {
  std::string word, reason;
  std::set<std::string> allowed;  // paths
};

struct Rules {
  std::vector<Rule> list;
  bool code_only = false;  // and not the tests
};

Offences broken(const Rules& rules, const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (rules.code_only && (!file.is_code() || file.folder() == "tests")) continue;
    if (file.path.starts_with("tests/data/") || file.path.starts_with("tests/structure/")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      for (const Rule& rule : rules.list) {
        if (has_word(file.lines[i], rule.word) && !rule.allowed.contains(file.path)) {
          offences.add(file, i + 1, cat(rule.word, ": ", rule.reason));
        }
      }
    }
  }
  return offences;
}

// The tree keeps the rules, and each of them would be noticed.
void expect_kept(const Rules& rules) {
  const Offences offences = broken(rules, source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  for (const Rule& rule : rules.list) {
    const std::string line = cat("  x = 1;  // ", rule.word);
    EXPECT_FALSE(broken(rules, {file_of("core/a.cpp", line)}).empty()) << rule.word;
    const bool in_tests = !broken(rules, {file_of("tests/core/a_test.cpp", line)}).empty();
    EXPECT_EQ(in_tests, !rules.code_only) << rule.word;
    for (const std::string& path : rule.allowed) {
      EXPECT_TRUE(broken({{rule}, rules.code_only}, {file_of(path, line)}).empty()) << rule.word;
    }
  }
}

TEST(Words, AreFoundWhole) {
  EXPECT_TRUE(has_word("a TODO: b", "TODO"));
  EXPECT_FALSE(has_word("a TODOS b", "TODO"));
  EXPECT_FALSE(has_word("static_assert(x)", "assert("));
  EXPECT_TRUE(has_word("reads /home/somebody/x", "/home/"));
}

TEST(Words, NothingIsLeftForLater) {
  expect_kept({.list = {{"TODO", "finish it or leave it out", {}},
                        {"FIXME", "fix it", {}},
                        {"XXX", "say what is the matter, or mend it", {}},
                        {"HACK", "do it well", {}},
                        {"not implemented", "implement it", {}},
                        {"not supported yet", "support it, or refuse it with the reason", {}},
                        {"GTEST_SKIP", "a test that cannot run fails", {}},
                        {"DISABLED_", "a test runs or is not there", {}}}});
}

TEST(Words, TheTreeStandsOnItsOwn) {
  const std::string reason = "a path of somebody's machine";
  expect_kept(
      {.list = {{"/home/", reason, {}}, {"/root/", reason, {}}, {"/tmp/peer", reason, {}}}});
}

TEST(Words, OneFileReadsTheEnvironment) {
  const std::string reason = "only core/environment.cpp reads the environment";
  const std::set<std::string> allowed = {"core/environment.cpp"};
  expect_kept({.list = {{"getenv", reason, allowed}, {"secure_getenv", reason, allowed}},
               .code_only = true});
}

TEST(Words, ErrorsAreThrown) {
  const std::string reason = "throw with fail() instead";
  expect_kept({.list = {{"std::exit(", reason, {}},
                        // After MPI_Abort, which does not return but is not declared so.
                        {"std::abort(", reason, {"parallel/comm/mpi.cpp"}},
                        {"assert(", reason, {}},
                        {"std::terminate(", reason, {}}},
               .code_only = true});
}

// Ranks are threads of one process: what is static and changes is shared by all of them.
Offences mutable_globals(const SourceFiles& files) {
  // The vector instructions are capped once, before the first kernel; HDF5 has one lock; a signal
  // comes to the process and its handler reaches nothing else.
  const std::set<std::string> allowed = {"core/instruction_set.cpp", "io/hdf5_file.cpp",
                                         "launcher/signals.cpp"};
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_code() || file.folder() == "tests" || allowed.contains(file.path)) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      std::string_view line = file.lines[i];
      const bool top = !line.starts_with(' ');
      line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
      const bool constant = line.find("const") != std::string_view::npos;
      const bool function = line.find('(') < line.find_first_of("={;");
      const bool is_static = line.starts_with("static ") && line.find_first_of("=;{") < line.size();
      const bool is_atomic = top && (line.starts_with("std::atomic") ||
                                     line.starts_with("std::mutex") || line.starts_with("inline "));
      if ((is_static || is_atomic) && !constant && !function) {
        offences.add(file, i + 1, cat("mutable and shared by all ranks: ", line));
      }
    }
  }
  return offences;
}

TEST(Words, RanksShareNothingMutable) {
  const Offences offences = mutable_globals(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  for (std::string_view line :
       {"  static int calls = 0;", "static std::vector<int> cache;", "std::atomic<int> count{0};",
        "std::mutex lock;", "inline int depth = 0;"}) {
    EXPECT_FALSE(mutable_globals({file_of("core/a.cpp", line)}).empty()) << line;
  }
  for (std::string_view line : {"static const int n = 3;", "  static int make(int n);",
                                "  static constexpr int n = 3;", "inline int f(int x) {"}) {
    EXPECT_TRUE(mutable_globals({file_of("core/a.cpp", line)}).empty()) << line;
  }
}

// Conditional compilation hides code from half of the builds.
Offences conditional_code(const SourceFiles& files) {
  // device: with or without CUDA; memory: every allocation its own under a sanitizer.
  const std::set<std::string> allowed = {"core/device.h", "core/device.cpp", "core/memory.cpp"};
  Offences offences;
  for (const SourceFile& file : files) {
    // Highway's own guards: a body that is compiled once for each set of instructions.
    if (!file.is_code() || allowed.contains(file.path) || file.ends_with("-inl.h")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      if (!line.starts_with("#if") && !line.starts_with("#el")) continue;
      if (line.starts_with("#if HWY_ONCE")) continue;
      offences.add(file, i + 1, cat("conditional compilation: ", line));
    }
  }
  return offences;
}

TEST(Words, NoConditionalCompilation) {
  const Offences offences = conditional_code(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(conditional_code({file_of("core/a.cpp", "#ifdef DEBUG\n#endif\n")}).empty());
  EXPECT_FALSE(conditional_code({file_of("io/a.h", "#if defined(X)\n#endif\n")}).empty());
}

}  // namespace
}  // namespace shoestring
