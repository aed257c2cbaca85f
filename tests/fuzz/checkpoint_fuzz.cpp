// Checkpoints: an input is the text of a manifest without its digest and, after a zero byte, the
// file of every rank. It is opened twice: sealed as it is, and, where that parses, once more with
// digests that fit the file, so that what lies behind the verification is reached too. The reader
// never hands a rank's file to the HDF5 library: the manifest says where each tensor lies.

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "io/checkpoint.h"
#include "io/checkpoint_file.h"
#include "io/checkpoint_manifest.h"
#include "io/digest.h"
#include "tests/fuzz/fuzz_target.h"

using namespace shoestring;

namespace {

namespace fs = std::filesystem;

void write(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// As checkpoint_manifest.cpp ends a text.
std::string sealed(std::string_view body) {
  return cat(std::string(body), ",\n\"digest\": \"", digest_of(body), "\"}\n");
}

// A folder of this process, removed at its end.
class Folder {
 public:
  Folder() : path_(cat((fs::temp_directory_path() / "checkpoint_fuzz_").string(), ::getpid())) {
    fs::create_directories(step());
  }
  ~Folder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  std::string step() const { return path_ + "/step_00000001"; }

 private:
  std::string path_;
};

// Every second row without the first and last columns, so that it cuts any stored piece.
std::optional<TensorBox> odd_box(const Shape& shape) {
  if (shape.elements() == 0 || shape.elements() > 4096) return std::nullopt;
  const int64_t columns = columns_of(shape), narrow = columns > 2 ? columns - 2 : columns;
  TensorBox box{.rows = {}, .first_column = columns > 2 ? 1 : 0, .columns = narrow};
  for (int64_t row = 0; 2 * row < rows_of(shape); ++row) {
    box.rows.push_back({.local = row, .global = 2 * row, .count = 1});
  }
  return box;
}

void read_all(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.names()) {
    const int64_t n = checkpoint.shape(name).elements();
    std::vector<std::byte> values(static_cast<size_t>(n) * size_of(checkpoint.dtype(name)));
    checkpoint.read(name, 0, n, checkpoint.dtype(name), values.data());
    checkpoint.read(name, n / 2, n, checkpoint.dtype(name), values.data());
    const std::optional<TensorBox> box = odd_box(checkpoint.shape(name));
    if (!box) continue;
    const int64_t half = box->elements() / 2;
    checkpoint.read_box(name, {.box = box, .begin = half, .end = box->elements()},
                        checkpoint.dtype(name), values.data());
  }
}

// Lengths and digests that fit the file; the sizes of tensors stay what the input says.
std::string fitted(Manifest manifest, std::string_view bytes) {
  for (StoredFile& file : manifest.files) {
    if (file.name.empty()) continue;
    file.bytes = bytes.size();
    for (StoredPiece& p : file.pieces) {
      if (p.bytes() > bytes.size() || p.offset > bytes.size() - p.bytes()) return "";
      p.digest = digest_of(bytes.substr(p.offset, p.bytes()));
    }
    file.frame = frame_digest(file, reinterpret_cast<const uint8_t*>(bytes.data()));
  }
  return manifest_text(manifest);
}

template <class F>
void expect_data_errors(F&& work) {
  try {
    work();
  } catch (const Error& error) {
    if (error.code() != ExitCode::data) throw;
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  const std::string_view bytes = input.substr(std::min(end + 1, input.size()));
  const std::string manifest = folder.step() + "/manifest.json";
  for (int rank : {0, 1}) write(folder.step() + "/" + name_of_rank_file(rank), bytes);
  const std::string text = sealed(input.substr(0, end));
  write(manifest, text);
  expect_data_errors([&] { read_all(Checkpoint::open(folder.step())); });
  expect_data_errors([&] {
    const std::string again = fitted(parse_manifest(text, manifest), bytes);
    if (again.empty()) return;
    write(manifest, again);
    read_all(Checkpoint::open(folder.step()));
  });
  return 0;
}
