// Who may include whom: the arrows of docs/architecture.md, and one door to each library. Every
// rule is tried on an example that breaks it.

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

Offences wrong_arrows(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    if (file.is_code() && arrows.contains(file.folder())) {
      check_arrows(offences, file, file.folder());
    }
  }
  return offences;
}

bool finds_arrow(std::string path, std::string_view include) {
  return !wrong_arrows({file_of(std::move(path), cat("#include \"", include, "\"\n"))}).empty();
}

TEST(Includes, FollowTheArrows) {
  const Offences offences = wrong_arrows(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_TRUE(finds_arrow("core/a.cpp", "optim/adamw.h"));
  EXPECT_TRUE(finds_arrow("core/ops/a.cu", "parallel/communicator.h"));
  EXPECT_TRUE(finds_arrow("optim/a.h", "io/loader.h"));
  EXPECT_TRUE(finds_arrow("io/a.h", "launcher/step.h"));
  EXPECT_TRUE(finds_arrow("launcher/a.cpp", "tests/support/error_model.h"));
  EXPECT_FALSE(finds_arrow("launcher/a.cpp", "io/loader.h"));
}

// Tests of a folder see what the folder sees.
Offences wrong_test_arrows(const SourceFiles& files) {
  std::map<std::string, std::string> like = {{"conformance", "launcher"},
                                             {"equivalence", "launcher"},
                                             {"structure", "core"},
                                             {"support", "core"}};
  for (const auto& [folder, targets] : arrows) like[folder] = folder;
  Offences offences;
  for (const SourceFile& file : files) {
    if (!file.is_code() || file.folder() != "tests") continue;
    auto folder = like.find(first_part(file.path.substr(6)));
    if (folder != like.end()) check_arrows(offences, file, folder->second);
  }
  return offences;
}

TEST(Includes, TestsSeeWhatTheirFolderSees) {
  const Offences offences = wrong_test_arrows(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  auto finds = [](std::string path, std::string_view text) {
    return !wrong_test_arrows({file_of(std::move(path), text)}).empty();
  };
  EXPECT_TRUE(finds("tests/core/a_test.cpp", "#include \"io/loader.h\"\n"));
  EXPECT_TRUE(finds("tests/parallel/a_test.cpp", "#include \"optim/ema.h\"\n"));
  EXPECT_FALSE(finds("tests/conformance/a_test.cpp", "#include \"optim/ema.h\"\n"));
  EXPECT_FALSE(finds("tests/equivalence/a_test.cpp", "#include \"optim/ema.h\"\n"));
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
      "launcher/data_commands", "launcher/folder_commands", "launcher/model_commands",
      "launcher/parity_commands", "launcher/schedule_commands", "launcher/tokenizer_commands"}},
    {"mpi.h", {"parallel/"}},
    {"hdf5", {"io/"}},
    {"pcre2.h", {"io/tokenizer/"}},
    {"utf8proc.h", {"io/tokenizer/"}},
    {"zstd.h", {"io/"}},
    {"zlib.h", {"io/"}},
};

Offences wrong_doors(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
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
  return offences;
}

TEST(Includes, EachLibraryHasItsDoor) {
  const Offences offences = wrong_doors(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  for (std::string_view library :
       {"oneapi/dnnl/dnnl.hpp", "omp.h", "toml++/toml.h", "CLI/CLI.hpp", "mpi.h", "hdf5.h",
        "pcre2.h", "utf8proc.h", "zstd.h", "zlib.h"}) {
    const SourceFile file = file_of("optim/a.cpp", cat("#include <", library, ">\n"));
    EXPECT_FALSE(wrong_doors({file}).empty()) << library;
  }
}

// CUDA's own headers stay where kernels and devices are.
Offences wrong_cuda(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    const bool kernels = file.ends_with(".cu") || file.ends_with(".cuh") ||
                         file.path.starts_with("core/cuda/") ||
                         file.path.starts_with("core/device.");
    if (!file.is_code() || file.folder() == "tests" || kernels) continue;
    for (const Include& include : includes_of(file)) {
      if (include.path.starts_with("cuda") || include.path.starts_with("nccl")) {
        offences.add(file, include.line, cat(include.path, " belongs into a .cu file"));
      }
    }
  }
  return offences;
}

TEST(Includes, CudaStaysInItsFiles) {
  const Offences offences = wrong_cuda(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(wrong_cuda({file_of("core/a.h", "#include <cuda_runtime.h>\n")}).empty());
  EXPECT_TRUE(wrong_cuda({file_of("core/device.cpp", "#include <cuda_runtime.h>\n")}).empty());
}

Offences heavy_headers(const SourceFiles& files) {
  const std::vector<std::string_view> heavy = {"nlohmann/", "toml++", "CLI/",  "hwy/",  "hdf5",
                                               "oneapi/",   "mpi.h",  "omp.h", "regex", "pcre2.h"};
  Offences offences;
  for (const SourceFile& file : files) {
    // *-inl.h are bodies that Highway compiles once for each set of instructions.
    if (!file.is_header() || file.ends_with("-inl.h") || file.folder() == "tests") continue;
    // Inside of comm/mpi its own headers name MPI's types.
    const bool of_mpi = file.path.starts_with("parallel/comm/mpi_");
    for (const Include& include : includes_of(file)) {
      for (std::string_view library : heavy) {
        if (of_mpi && library == "mpi.h") continue;
        if (include.path.starts_with(library)) {
          offences.add(file, include.line, cat(include.path, " belongs into a .cpp file"));
        }
      }
    }
  }
  return offences;
}

TEST(Includes, HeadersStayLight) {
  const Offences offences = heavy_headers(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  EXPECT_FALSE(heavy_headers({file_of("io/a.h", "#include <hdf5.h>\n")}).empty());
  EXPECT_TRUE(heavy_headers({file_of("io/a.cpp", "#include <hdf5.h>\n")}).empty());
  EXPECT_FALSE(heavy_headers({file_of("parallel/comm/mpi.h", "#include <mpi.h>\n")}).empty());
}

// Headers inside of comm/mpi stay there.
Offences wrong_insides(const SourceFiles& files) {
  Offences offences;
  for (const SourceFile& file : files) {
    const bool inside = file.path.starts_with("parallel/comm/mpi") || file.folder() == "tests";
    for (const Include& include : includes_of(file)) {
      if (inside || !include.path.starts_with("parallel/comm/mpi_")) continue;
      offences.add(file, include.line, cat(include.path, " is inside of comm/mpi"));
    }
  }
  return offences;
}

TEST(Includes, TheInsideOfMpiStaysThere) {
  const Offences offences = wrong_insides(source_files());
  EXPECT_TRUE(offences.empty()) << offences.text();
  const std::string line = "#include \"parallel/comm/mpi_board.h\"\n";
  EXPECT_FALSE(wrong_insides({file_of("launcher/a.cpp", line)}).empty());
  EXPECT_TRUE(wrong_insides({file_of("parallel/comm/mpi.cpp", line)}).empty());
}

}  // namespace
}  // namespace shoestring
