// Who may include whom: the arrows of docs/architecture.md, and one door to each library.

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/text.h"
#include "tests/support/source_tree.h"

namespace shoestring {
namespace {

const std::map<std::string, std::set<std::string>> arrows = {
    {"core", {"core"}},
    {"parallel", {"core", "parallel"}},
    {"optim", {"core", "optim"}},
    {"io", {"core", "io"}},
    {"launcher", {"core", "parallel", "optim", "io", "launcher"}},
};

std::string first_part(const std::string& path) { return path.substr(0, path.find('/')); }

void check_arrows(Offences& offences, const SourceFile& file, const std::string& folder) {
  for (const Include& include : includes_of(file)) {
    std::string target = first_part(include.path);
    bool known = arrows.contains(target) || (target == "tests" && file.folder() != "tests");
    if (known && !arrows.at(folder).contains(target)) {
      offences.add(file, include.line, cat(folder, " must not include ", include.path));
    }
  }
}

TEST(Includes, FollowTheArrows) {
  Offences offences;
  for (const SourceFile& file : source_files()) {
    if (file.is_code() && arrows.contains(file.folder())) {
      check_arrows(offences, file, file.folder());
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

TEST(Includes, TestsSeeWhatTheirFolderSees) {
  std::map<std::string, std::string> like = {{"conformance", "parallel"},
                                             {"equivalence", "launcher"}};
  for (const auto& [folder, targets] : arrows) like[folder] = folder;
  Offences offences;
  for (const SourceFile& file : source_files()) {
    if (!file.is_code() || file.folder() != "tests") continue;
    auto folder = like.find(first_part(file.path.substr(6)));
    if (folder != like.end()) check_arrows(offences, file, folder->second);
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

// A library and the beginnings of the paths that may include it.
struct Door {
  std::string_view library;
  std::vector<std::string> allowed;
};
const std::vector<Door> doors = {
    // instruction_set.cpp caps the instructions that oneDNN may use, before its first product.
    {"oneapi/dnnl", {"core/matmul.cpp", "core/instruction_set.cpp"}},
    {"omp.h", {"core/matmul.cpp", "core/parallel_for.cpp"}},
    {"toml++", {"launcher/config_toml.cpp"}},
    {"CLI/",
     {"launcher/command_line.cpp", "launcher/command_groups", "launcher/bench_commands",
      "launcher/data_commands", "launcher/model_commands", "launcher/tokenizer_commands"}},
    {"mpi.h", {"parallel/"}},
    {"hdf5", {"io/"}},
    {"pcre2.h", {"io/tokenizer/"}},
    {"utf8proc.h", {"io/tokenizer/"}},
    {"zstd.h", {"io/"}},
    {"zlib.h", {"io/"}},
};

TEST(Includes, EachLibraryHasItsDoor) {
  Offences offences;
  for (const SourceFile& file : source_files()) {
    if (!file.is_code() || file.folder() == "tests") continue;
    for (const Include& include : includes_of(file)) {
      for (const Door& door : doors) {
        if (!include.path.starts_with(door.library)) continue;
        bool allowed = false;
        for (const std::string& place : door.allowed) allowed |= file.path.starts_with(place);
        if (!allowed) offences.add(file, include.line, cat("must not include ", include.path));
      }
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

TEST(Includes, HeadersStayLight) {
  const std::vector<std::string_view> heavy = {"nlohmann/", "toml++", "CLI/",  "hwy/",  "hdf5",
                                               "oneapi/",   "mpi.h",  "omp.h", "regex", "pcre2.h"};
  Offences offences;
  for (const SourceFile& file : source_files()) {
    // *-inl.h are bodies that Highway compiles once for each set of instructions.
    if (!file.is_header() || file.ends_with("-inl.h") || file.folder() == "tests") continue;
    for (const Include& include : includes_of(file)) {
      for (std::string_view library : heavy) {
        if (include.path.starts_with(library)) {
          offences.add(file, include.line, cat(include.path, " belongs into a .cpp file"));
        }
      }
    }
  }
  EXPECT_TRUE(offences.empty()) << offences.text();
}

}  // namespace
}  // namespace shoestring
