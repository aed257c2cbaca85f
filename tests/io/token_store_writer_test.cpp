#include "io/token_store_writer.h"

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(TokenStoreWriter, RefusesPartsThatDoNotFit) {
  ScratchFolder folder;
  const DocumentRecord record{.tokens = 5, .text_hash = 1, .text_bytes = 1};
  const std::string one(reinterpret_cast<const char*>(&record), sizeof record);
  const auto attempt = [&](const std::string& tokens, const std::string& records) {
    write_file(folder / "t", tokens);
    write_file(folder / "r", records);
    write_token_store(
        folder / "out.h5",
        {.tokens_path = folder / "t", .documents_path = folder / "r", .facts = plain_facts()});
  };
  attempt(std::string(10, '\0'), one);
  std::filesystem::remove(folder / "out.h5");
  expect_error(ExitCode::data, {"no documents"}, [&] { attempt("", one); });
  expect_error(ExitCode::data, {"no documents"}, [&] { attempt(std::string(10, '\0'), ""); });
  expect_error(ExitCode::data, {"have 5 tokens, but 4"},
               [&] { attempt(std::string(8, '\0'), one); });
  EXPECT_FALSE(std::filesystem::exists(folder / "out.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.h5.tmp"));
}

TEST(TokenStoreWriter, TheBlockVouchesForItself) {
  const TokenStoreBlock block{
      .file_bytes = 100, .tokens_at = 10, .tokens_bytes = 20, .rest_digest = 5};
  const std::string text = format_store_block(block);
  EXPECT_EQ(text.size(), kTokenStoreBlockBytes);
  EXPECT_TRUE(text.starts_with("shoestring token store 1\nfile_bytes 100\n"));
  TokenStoreBlock other = block;
  other.tokens_at = 11;
  EXPECT_NE(format_store_block(other), text);
}

TEST(TokenStoreWriter, SameDocumentsSameBytes) {
  ScratchFolder folder;
  make_store(folder / "a.h5", {{1, 2}, {3}}, plain_facts());
  make_store(folder / "b.h5", {{1, 2}, {3}}, plain_facts());
  EXPECT_TRUE(read_file(folder / "a.h5") == read_file(folder / "b.h5"));
}

}  // namespace
}  // namespace shoestring
