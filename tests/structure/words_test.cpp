// What must not be written anywhere, and what only certain files may write.

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

void check_rules(const std::vector<Rule>& rules, bool code_only) {
  Offences offences;
  for (const SourceFile& file : source_files()) {
    if (code_only && (!file.is_code() || file.folder() == "tests")) continue;
    if (file.path.starts_with("tests/data/") || file.path.starts_with("tests/structure/")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      for (const Rule& rule : rules) {
        if (has_word(file.lines[i], rule.word) && !rule.allowed.contains(file.path)) {
          offences.add(file, i + 1, cat(rule.word, ": ", rule.reason));
        }
      }
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

TEST(Words, NothingIsLeftForLater) {
  check_rules({{"TODO", "finish it or leave it out", {}},
               {"FIXME", "fix it", {}},
               {"HACK", "do it well", {}},
               {"not implemented", "implement it", {}},
               {"not supported yet", "support it, or refuse it with the reason", {}},
               {"GTEST_SKIP", "a test that cannot run fails", {}},
               {"DISABLED_", "a test runs or is not there", {}}},
              false);
}

TEST(Words, TheTreeStandsOnItsOwn) {
  check_rules({{"/home/", "a path of somebody's machine", {}},
               {"/root/", "a path of somebody's machine", {}},
               {"/tmp/peer", "a path of somebody's machine", {}}},
              false);
}

TEST(Words, OneFileReadsTheEnvironment) {
  const std::string reason = "only core/environment.cpp reads the environment";
  const std::set<std::string> allowed = {"core/environment.cpp"};
  check_rules({{"getenv", reason, allowed}, {"secure_getenv", reason, allowed}}, true);
}

TEST(Words, ErrorsAreThrown) {
  const std::string reason = "throw with fail() instead";
  check_rules({{"std::exit(", reason, {}},
               // After MPI_Abort, which does not return but is not declared so.
               {"std::abort(", reason, {"parallel/comm/mpi.cpp"}},
               {"assert(", reason, {}},
               {"std::terminate(", reason, {}}},
              true);
}

// Conditional compilation hides code from half of the builds.
TEST(Words, NoConditionalCompilation) {
  // device: with or without CUDA; memory: every allocation its own under a sanitizer.
  const std::set<std::string> allowed = {"core/device.h", "core/device.cpp", "core/memory.cpp"};
  Offences offences;
  for (const SourceFile& file : source_files()) {
    // Highway's own guards: a body that is compiled once for each set of instructions.
    if (!file.is_code() || allowed.contains(file.path) || file.ends_with("-inl.h")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      if (!line.starts_with("#if") && !line.starts_with("#el")) continue;
      if (line.starts_with("#if HWY_ONCE")) continue;
      offences.add(file, i + 1, cat("conditional compilation: ", line));
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

}  // namespace
}  // namespace shoestring
