// Token stores: the first byte of an input says whether the rest is a file as it is, or the
// contents of the arrays of a small, well-formed one, whose index is sealed with a fitting digest
// here. The HDF5 library itself is not the subject: a store's index is verified before the library
// sees it, so that it never meets damaged bytes.

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "io/document_stream.h"
#include "io/hdf5_file.h"
#include "io/token_store.h"
#include "io/token_store_writer.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/memory_file.h"

using namespace shoestring;

namespace {

namespace fs = std::filesystem;

// A store of 3 documents and 24 tokens, its bytes and where its arrays lie.
struct Template {
  std::string bytes;
  std::vector<Hdf5Extent> arrays;
  TokenStoreBlock block;
};

Template make_template() {
  const std::string folder = (fs::temp_directory_path() / cat("store_fuzz_", ::getpid())).string();
  fs::create_directories(folder);
  std::vector<DocumentRecord> records(3, {.tokens = 8, .text_hash = 5, .text_bytes = 20});
  std::vector<uint16_t> tokens(24, 7);
  const std::string path = folder + "/store.h5";
  std::ofstream(folder + "/records", std::ios::binary)
      .write(reinterpret_cast<const char*>(records.data()),
             static_cast<std::streamsize>(records.size() * sizeof(DocumentRecord)));
  std::ofstream(folder + "/tokens", std::ios::binary)
      .write(reinterpret_cast<const char*>(tokens.data()),
             static_cast<std::streamsize>(tokens.size() * 2));
  write_token_store(path, {.tokens_path = folder + "/tokens",
                           .documents_path = folder + "/records",
                           .facts = {.tokenizer_hash = "abc",
                                     .vocabulary = 300,
                                     .end_of_document = 0,
                                     .provenance = "{\"program\":\"fuzz\"}"}});
  Template result;
  std::ifstream file(path, std::ios::binary);
  result.bytes = {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::vector<std::string> names = {"document_offsets", "document_hashes", "document_bytes",
                                          "chunk_digests",    "tokens",          "provenance"};
  Hdf5Layout layout = read_hdf5_layout(path, names);
  for (const std::string& name : names) result.arrays.push_back(layout.datasets[name]);
  result.block = {.file_bytes = result.bytes.size(),
                  .tokens_at = layout.datasets["tokens"].position,
                  .tokens_bytes = layout.datasets["tokens"].bytes()};
  fs::remove_all(folder);
  return result;
}

// The arrays get the input's bytes, one after another; what the input does not reach stays.
std::string filled(const Template& from, std::string_view input) {
  std::string bytes = from.bytes;
  for (const Hdf5Extent& array : from.arrays) {
    const size_t n = std::min<size_t>(array.bytes(), input.size());
    std::memcpy(bytes.data() + array.position, input.data(), n);
    input.remove_prefix(n);
  }
  TokenStoreBlock block = from.block;
  block.rest_digest = digest_store_rest(reinterpret_cast<const uint8_t*>(bytes.data()), block);
  bytes.replace(0, kTokenStoreBlockBytes, format_store_block(block));
  return bytes;
}

void use(const std::string& path) {
  const auto store = TokenStore::open(path);
  for (Split split : {Split::train, Split::held_out}) {
    const DocumentStream stream(store, split, 0.5);
    std::vector<int32_t> ids(static_cast<size_t>(stream.tokens()));
    stream.read(0, stream.tokens(), ids.data());
    for (int32_t id : ids) check(id >= 0 && id < store->facts().vocabulary, "an id too high");
  }
  store->verify();
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Template from = make_template();
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const MemoryFile file((data[0] & 1) ? std::string(rest) : filled(from, rest));
  try {
    use(file.path());
  } catch (const Error& error) {
    if (error.code() != ExitCode::data) throw;
  }
  return 0;
}
