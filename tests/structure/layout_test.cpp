// Where files are and what they are called. Every rule is tried on an example that breaks it.

#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <set>

#include "core/text.h"
#include "tests/support/source_tree.h"

namespace shoestring {
namespace {

const std::set<std::string> top_level = {
    ".ci",       ".clang-format", ".gitignore", "CMakeLists.txt", "CMakePresets.json",
    "README.md", "configs",       "core",       "docs",           "io",
    "launcher",  "optim",         "parallel",   "tests"};

const std::set<std::string> code_folders = {"core", "parallel", "optim", "io", "launcher"};

Offences strangers(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (!top_level.contains(file.folder())) offences.add(file, 1, "does not belong at the top");
  }
  return offences;
}

TEST(Layout, TopLevelHoldsOnlyWhatBelongsThere) {
  const Offences offences = strangers(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(strangers({file_of("utils/a.cpp", "")}).empty());
  EXPECT_FALSE(strangers({file_of("notes.txt", "")}).empty());
}

Offences untested(const SourceFiles& files) {
  std::set<std::string> paths;
  for (const SourceFile& file : files) paths.insert(file.path);
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_source() || !code_folders.contains(file.folder())) continue;
    // The program's entry is one call; tests/launcher/command_line_test.cpp runs the program.
    if (file.path == "launcher/main.cpp") continue;
    std::string beside = cat("tests/", file.path.substr(0, file.path.rfind('.')), "_test.cpp");
    std::string conformance = cat("tests/conformance/", file.stem(), "_test.cpp");
    if (!paths.contains(beside) && !paths.contains(conformance)) {
      offences.add(file, 1, cat("has no test: ", beside));
    }
  }
  return offences;
}

TEST(Layout, EverySourceFileHasATestOfItsName) {
  const Offences offences = untested(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  const SourceFile source = file_of("core/ops/a.cpp", "");
  EXPECT_FALSE(untested({source}).empty());
  EXPECT_FALSE(untested({source, file_of("tests/core/a_test.cpp", "")}).empty());
  EXPECT_TRUE(untested({source, file_of("tests/core/ops/a_test.cpp", "")}).empty());
}

Offences subjectless(const SourceFiles& files) {
  std::set<std::string> subjects;
  for (const SourceFile& file : files) {
    if (file.is_code()) subjects.insert(file.path.substr(0, file.path.rfind('.')));
  }
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.path.starts_with("tests/") || !file.ends_with("_test.cpp")) continue;
    std::string subject = file.path.substr(6, file.path.size() - 6 - 9);
    if (!code_folders.contains(subject.substr(0, subject.find('/')))) continue;
    if (!subjects.contains(subject) && !subjects.contains(subject + "-inl")) {
      offences.add(file, 1, cat("there is no ", subject, ".h or .cpp"));
    }
  }
  return offences;
}

TEST(Layout, EveryTestHasItsSubject) {
  const Offences offences = subjectless(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(subjectless({file_of("tests/core/gone_test.cpp", "")}).empty());
}

Offences oddly_named(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_code()) continue;
    std::string stem = file.stem();
    if (file.ends_with("-inl.h")) stem.resize(stem.size() - 4);
    if (stem.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos) {
      offences.add(file, 1, "file names are snake_case");
    }
  }
  return offences;
}

TEST(Layout, NamesAreSnakeCase) {
  const Offences offences = oddly_named(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(oddly_named({file_of("core/RmsNorm.cpp", "")}).empty());
  EXPECT_FALSE(oddly_named({file_of("core/rms-norm.h", "")}).empty());
}

// The name that a line defines as a type; empty when it defines none.
std::string_view defined_type(std::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  for (std::string_view word : {"struct ", "class ", "enum class ", "using ", "concept "}) {
    if (!line.starts_with(word)) continue;
    std::string_view name = line.substr(word.size());
    const size_t end = name.find_first_of(" :;{=<");
    const std::string_view after = end < name.size() ? name.substr(end) : std::string_view();
    const bool alias = word == "using " || word == "concept ";
    const bool defines =
        alias ? after.starts_with(" =")
              : after.starts_with(" {") || after.starts_with(" : ") || after.starts_with(";");
    return defines ? name.substr(0, end) : std::string_view();
  }
  return {};
}

Offences oddly_named_types(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_code()) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string_view name = defined_type(file.lines[i]);
      if (name.empty() || std::isupper(static_cast<unsigned char>(name[0]))) continue;
      offences.add(file, i + 1, cat("types are PascalCase: ", name));
    }
  }
  return offences;
}

TEST(Layout, TypesArePascalCase) {
  const Offences offences = oddly_named_types(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(oddly_named_types({file_of("core/a.h", "struct param_info {")}).empty());
  EXPECT_FALSE(oddly_named_types({file_of("core/a.h", "class tape;")}).empty());
  EXPECT_TRUE(oddly_named_types({file_of("core/a.cpp", "  struct stat info {};")}).empty());
  EXPECT_FALSE(oddly_named_types({file_of("core/a.h", "  enum class phase : uint8_t {")}).empty());
  EXPECT_FALSE(
      oddly_named_types({file_of("core/a.h", "using floats = std::vector<float>;")}).empty());
}

Offences unguarded(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    // What Highway compiles several times has a guard of its own.
    if (!file.is_header() || file.ends_with("-inl.h")) continue;
    if (file.lines.empty() || file.lines[0] != "#pragma once") {
      offences.add(file, 1, "begins without #pragma once");
    }
  }
  return offences;
}

TEST(Layout, HeadersAreGuarded) {
  const Offences offences = unguarded(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(unguarded({file_of("core/a.h", "// A comment.\n#pragma once\n")}).empty());
}

TEST(Layout, TestDataIsSmall) {
  uintmax_t total = 0;
  std::string folder = SHOESTRING_SOURCE_DIR "/tests/data";
  if (!std::filesystem::exists(folder)) return;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    EXPECT_LE(entry.file_size(), 400'000u) << entry.path();
    total += entry.file_size();
  }
  EXPECT_LE(total, 12'000'000u);
}

}  // namespace
}  // namespace shoestring
