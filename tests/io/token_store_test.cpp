#include "io/token_store.h"

#include <cstring>
#include <filesystem>
#include <random>

#include "io/hdf5_file.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

std::vector<std::vector<int32_t>> numbered(int documents, int length) {
  std::vector<std::vector<int32_t>> out;
  for (int d = 0; d < documents; ++d) out.emplace_back(length, d % 1000);
  return out;
}

void flip_bit(const std::string& path, uint64_t byte, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<long>(byte));
  const int old = file.get();
  file.seekp(static_cast<long>(byte));
  file.put(static_cast<char>(old ^ 1 << bit));
}

uint64_t tokens_position(const std::string& path) {
  const std::string start = read_file(path).substr(0, 4096);
  return std::stoull(start.substr(start.find("tokens_at ") + 10));
}

TEST(TokenStore, GivesBackWhatWasWritten) {
  ScratchFolder folder;
  for (int64_t vocabulary : {1000, 65536, 65537, 200000}) {
    const std::string path = folder / "store.h5";
    const int32_t top = static_cast<int32_t>(vocabulary - 1);
    make_store(path, {{1, 2, 3}, {top}, {5, 6}}, plain_facts(vocabulary), {7, 8, 9});
    const auto store = TokenStore::open(path);
    EXPECT_EQ(store->token_bytes(), vocabulary > 65536 ? 4 : 2);
    EXPECT_EQ(store_tokens(*store), (std::vector<int32_t>{1, 2, 3, top, 5, 6}));
    EXPECT_EQ(store->documents(), 3);
    EXPECT_EQ(store->document_start(1), 3);
    EXPECT_EQ(store->document_start(3), 6);
    EXPECT_EQ(store->document_hash(2), 9u);
    EXPECT_EQ(store->document_bytes(0), 9);
    EXPECT_EQ(store->facts().tokenizer_hash, "abc");
    EXPECT_EQ(store->facts().vocabulary, vocabulary);
    EXPECT_EQ(store->facts().end_of_document, 0);
    EXPECT_EQ(store->facts().provenance, "{\"program\":\"test\"}");
    store->verify();
  }
}

TEST(TokenStore, NamesTheDamagedChunkWhenItIsTouched) {
  ScratchFolder folder;
  const std::string path = folder / "store.h5";
  make_store(path, numbered(400, 4000), plain_facts());  // 3.2 MB: four chunks
  const uint64_t at = tokens_position(path) + 2 * kTokenChunkBytes + 12345;
  flip_bit(path, at, 3);
  const auto store = TokenStore::open(path);
  std::vector<int32_t> ids(100);
  store->read(0, 100, ids.data());  // the first chunk is whole
  const int64_t bad = static_cast<int64_t>(2 * kTokenChunkBytes / 2);
  expect_error(ExitCode::data, {path, "chunk 2", "damaged", "pack the text again"},
               [&] { store->read(bad - 50, 100, ids.data()); });
  expect_error(ExitCode::data, {"chunk 2"}, [&] { store->verify(); });
  expect_error(ExitCode::fault, {"tokens"},
               [&] { store->read(store->tokens() - 1, 2, ids.data()); });
}

TEST(TokenStore, FindsAnyFlippedBit) {
  ScratchFolder folder;
  const std::string path = folder / "store.h5";
  make_store(path, numbered(50, 37), plain_facts());
  const std::string whole = read_file(path);
  std::mt19937_64 random(1);
  for (int i = 0; i < 400; ++i) {
    const uint64_t byte = random() % whole.size();
    const int bit = static_cast<int>(random() % 8);
    flip_bit(path, byte, bit);
    expect_error(ExitCode::data, {path}, [&] { TokenStore::open(path)->verify(); });
    flip_bit(path, byte, bit);
  }
  TokenStore::open(path)->verify();
}

TEST(TokenStore, FindsTruncationAtEveryPlace) {
  ScratchFolder folder;
  const std::string path = folder / "store.h5";
  make_store(path, numbered(20, 30), plain_facts());
  const std::string whole = read_file(path);
  for (size_t size = 0; size < whole.size(); size += 1 + size / 20) {
    write_file(path, whole.substr(0, size));
    expect_error(ExitCode::data, {path}, [&] { TokenStore::open(path)->verify(); });
  }
  write_file(path, whole + "x");
  expect_error(ExitCode::data, {path, "appended"}, [&] { TokenStore::open(path); });
}

// Also of a store that is being read.
TEST(TokenStore, SaysThatItsFileWasCutOffMeanwhile) {
  ScratchFolder folder;
  const std::string path = folder / "store.h5";
  make_store(path, numbered(20, 30), plain_facts());
  const auto store = TokenStore::open(path);
  std::filesystem::resize_file(path, 100);
  int32_t id = 0;
  expect_error(ExitCode::data, {path, "cut it off"}, [&] { store->read(0, 1, &id); });
}

TEST(TokenStore, RefusesOtherFiles) {
  ScratchFolder folder;
  expect_error(ExitCode::data, {"missing.h5", "No such file"},
               [&] { TokenStore::open(folder / "missing.h5"); });
  write_file(folder / "text", std::string(5000, 'x'));
  expect_error(ExitCode::data, {"no token store", "data pack"},
               [&] { TokenStore::open(folder / "text"); });
  expect_error(ExitCode::data, {"not a regular file"}, [&] { TokenStore::open(folder.path()); });
}

// The digest of the index vouches for what was written, not for its sense.
TEST(TokenStore, RefusesContradictoryTablesThatAreSealed) {
  ScratchFolder folder;
  const std::string path = folder / "store.h5";
  make_store(path, {{1, 2, 3}, {4}, {5, 6}}, plain_facts());
  const std::string whole = read_file(path);
  const Hdf5Layout layout =
      read_hdf5_layout(path, {"tokens", "document_offsets", "document_bytes"});
  const Hdf5Extent& tokens = layout.datasets.at("tokens");
  const auto change = [&](const char* table, size_t item, int64_t value) {
    std::string bytes = whole;
    std::memcpy(bytes.data() + layout.datasets.at(table).position + 8 * item, &value, 8);
    TokenStoreBlock block{
        .file_bytes = bytes.size(), .tokens_at = tokens.position, .tokens_bytes = tokens.bytes()};
    block.rest_digest = digest_store_rest(reinterpret_cast<const uint8_t*>(bytes.data()), block);
    bytes.replace(0, kTokenStoreBlockBytes, format_store_block(block));
    write_file(path, bytes);
  };
  const auto refused = [&](const std::string& part) {
    expect_error(ExitCode::data, {path, "contradict", part}, [&] { TokenStore::open(path); });
  };
  change("document_offsets", 1, 3);  // as it was
  TokenStore::open(path)->verify();
  change("document_offsets", 0, 1);
  refused("document 0 has tokens 1 to 3");
  change("document_offsets", 1, 5);
  refused("document 1 has tokens 5 to 4");
  change("document_offsets", 2, int64_t{1} << 62);
  refused("document 2 has tokens 4611686018427387904 to 6");
  change("document_offsets", 3, 7);
  refused("the documents end at token 7 of 6");
  change("document_bytes", 1, -1);
  refused("document 1 has -1 bytes");
  change("document_bytes", 1, INT64_MAX);
  refused("bytes of text");
}

TEST(TokenStore, FindsIdsOutsideTheVocabulary) {
  ScratchFolder folder;
  const std::string path = folder / "store.h5";
  make_store(path, {{1, 2, 3}, {999, 1000, 5}}, plain_facts(1000));
  std::vector<int32_t> ids(6);
  expect_error(ExitCode::data, {"token 4", "id 1000", "only 1000"},
               [&] { TokenStore::open(path)->read(0, 6, ids.data()); });
}

TEST(TokenStore, ComparesTokenizerAndModel) {
  ScratchFolder folder;
  const std::string path = folder / "store.h5";
  make_store(path, {{1}}, plain_facts(1000));
  const auto store = TokenStore::open(path);
  require_tokenizer(*store, "abc", "tokenizer.json");
  expect_error(ExitCode::data, {"abc", "def", "tokenizer.json", "pack the text again"},
               [&] { require_tokenizer(*store, "def", "tokenizer.json"); });
  require_vocabulary(*store, 1000);
  expect_error(ExitCode::data, {"999", "vocabulary has only 512", "at least 1000"},
               [&] { require_vocabulary(*store, 512); });
}

}  // namespace
}  // namespace shoestring
