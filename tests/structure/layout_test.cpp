// Where files are and what they are called.

#include <gtest/gtest.h>

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

TEST(Layout, TopLevelHoldsOnlyWhatBelongsThere) {
  Offences offences;
  for (const SourceFile& file : source_files()) {
    if (!top_level.contains(file.folder())) offences.add(file, 1, "does not belong at the top");
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

TEST(Layout, EverySourceFileHasATestOfItsName) {
  std::vector<SourceFile> files = source_files();
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
  EXPECT_TRUE(offences.empty()) << offences.text();
}

TEST(Layout, EveryTestHasItsSubject) {
  std::vector<SourceFile> files = source_files();
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
  EXPECT_TRUE(offences.empty()) << offences.text();
}

TEST(Layout, NamesAreSnakeCase) {
  Offences offences;
  for (const SourceFile& file : source_files()) {
    if (!file.is_code()) continue;
    std::string stem = file.stem();
    if (file.ends_with("-inl.h")) stem.resize(stem.size() - 4);
    if (stem.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos) {
      offences.add(file, 1, "file names are snake_case");
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

TEST(Layout, HeadersAreGuarded) {
  Offences offences;
  for (const SourceFile& file : source_files()) {
    // What Highway compiles several times has a guard of its own.
    if (!file.is_header() || file.ends_with("-inl.h")) continue;
    if (file.lines.empty() || file.lines[0] != "#pragma once") {
      offences.add(file, 1, "begins without #pragma once");
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
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
