#pragma once
// What the tests of the data path share: a scratch folder, files, small token stores, an encoder.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "io/pack_pipeline.h"
#include "io/token_store.h"
#include "io/token_store_writer.h"

namespace shoestring {

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "shoestring-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~ScratchFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void write_file(const std::string& path, std::string_view text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// One id a byte; 256 ends a document.
inline void encode_bytes(std::string_view text, bool, std::vector<int32_t>& ids) {
  for (char c : text) ids.push_back(static_cast<uint8_t>(c));
}
inline TextEncoder byte_encoder() {
  return {.make = [] { return EncodeText(encode_bytes); },
          .hash = "bytes",
          .vocabulary = 257,
          .end_of_document = 256};
}

// A store with these documents; document d has the text hash `hashes[d]` (default: d).
inline void make_store(const std::string& path, const std::vector<std::vector<int32_t>>& documents,
                       const TokenStoreFacts& facts, const std::vector<uint64_t>& hashes = {}) {
  std::string tokens, records;
  for (size_t d = 0; d < documents.size(); ++d) {
    const size_t bytes = wide_tokens(facts.vocabulary) ? 4 : 2;
    for (int32_t id : documents[d]) tokens.append(reinterpret_cast<const char*>(&id), bytes);
    const DocumentRecord record{.tokens = documents[d].size(),
                                .text_hash = hashes.empty() ? d : hashes[d],
                                .text_bytes = 3 * documents[d].size()};
    records.append(reinterpret_cast<const char*>(&record), sizeof record);
  }
  write_file(path + ".tokens", tokens);
  write_file(path + ".records", records);
  write_token_store(
      path, {.tokens_path = path + ".tokens", .documents_path = path + ".records", .facts = facts});
}

inline TokenStoreFacts plain_facts(int64_t vocabulary = 1000) {
  return {.tokenizer_hash = "abc",
          .vocabulary = vocabulary,
          .end_of_document = 0,
          .provenance = "{\"program\":\"test\"}"};
}

inline std::vector<int32_t> store_tokens(const TokenStore& store) {
  std::vector<int32_t> ids(static_cast<size_t>(store.tokens()));
  store.read(0, store.tokens(), ids.data());
  return ids;
}

// Runs `f`, expects an Error with this code whose message has all the parts, returns the message.
template <class F>
std::string expect_error(ExitCode code, const std::vector<std::string>& parts, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "\"" << part << "\" is not in: " << error.what();
    }
    return error.what();
  }
  ADD_FAILURE() << "no error; expected one about " << (parts.empty() ? "" : parts[0]);
  return {};
}

}  // namespace shoestring
