#include "launcher/data_pack_command.h"

#include <fstream>

#include "io/token_store.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokenizer/train_bpe.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

// A tokenizer of 300 ids, trained on one sentence.
void write_tokenizer(const std::string& path) {
  const DocumentSource source = [](const std::function<void(std::string)>& add) {
    add("the cat sat on the mat and the dog sat on the log");
  };
  write_file(path, train_bpe(source, {.vocabulary_size = 300}));
}

TEST(DataPackCommand, PacksTextWithATokenizer) {
  ScratchFolder folder;
  write_tokenizer(folder / "tok.json");
  const Tokenizer tokenizer = Tokenizer::load(folder / "tok.json");
  write_file(folder / "a.txt", "the cat\n\nsat on the <|endoftext|> mat\n");
  DataPackOptions options{.inputs = {folder / "a.txt"},
                          .tokenizer = folder / "tok.json",
                          .out = folder / "a.h5",
                          .split = "blank-lines",
                          .quiet = true};
  const std::string printed = data_pack(options);
  EXPECT_NE(printed.find("2 documents"), std::string::npos) << printed;
  const auto store = TokenStore::open(folder / "a.h5");
  require_tokenizer(*store, tokenizer.hash(), "tok.json");
  EXPECT_EQ(store->facts().vocabulary, tokenizer.vocabulary_size());
  EXPECT_EQ(store->facts().end_of_document, *tokenizer.end_of_text_id());
  // The mark ends each document, and the one in the text is only text.
  std::vector<int32_t> ids = store_tokens(*store);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), *tokenizer.end_of_text_id()), 2);
  EXPECT_EQ(tokenizer.decode(ids), "the cat<|endoftext|>sat on the <|endoftext|> mat<|endoftext|>");
}

TEST(DataPackCommand, WarnsOfOneLongDocument) {
  ScratchFolder folder;
  write_tokenizer(folder / "tok.json");
  std::string text;
  while (text.size() < 150'000) text += "the cat\n\n";
  write_file(folder / "a.txt", text);
  DataPackOptions options{.inputs = {folder / "a.txt"},
                          .tokenizer = folder / "tok.json",
                          .out = folder / "a.h5",
                          .overwrite = true,
                          .quiet = true};
  const auto said = [&] {
    ::testing::internal::CaptureStderr();
    data_pack(options);
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_NE(said().find("--split blank-lines"), std::string::npos);
  options.split = "blank-lines";
  EXPECT_EQ(said(), "");
  write_file(folder / "a.txt", "the cat");
  options.split = "file";
  EXPECT_EQ(said(), "");
}

TEST(DataPackCommand, ChoosesTheEndOfADocument) {
  ScratchFolder folder;
  write_tokenizer(folder / "tok.json");
  write_file(folder / "a.txt", "the cat");
  DataPackOptions options{.inputs = {folder / "a.txt"},
                          .tokenizer = folder / "tok.json",
                          .out = folder / "a.h5",
                          .quiet = true};
  options.end_of_document = "none";
  data_pack(options);
  EXPECT_EQ(TokenStore::open(folder / "a.h5")->facts().end_of_document, -1);
  options.overwrite = true;
  options.end_of_document = "the";
  data_pack(options);
  const auto store = TokenStore::open(folder / "a.h5");
  EXPECT_EQ(store->facts().end_of_document, store_tokens(*store).back());
  options.end_of_document = "no such token";
  expect_error(ExitCode::usage, {"--end-of-document", "no such token"},
               [&] { data_pack(options); });
}

TEST(DataPackCommand, PiecesDoNotChangeTheIds) {
  ScratchFolder folder;
  write_tokenizer(folder / "tok.json");
  std::string text;
  for (int i = 0; text.size() < (3 << 20); ++i) {
    append(text, "the cat ", i, i % 11 == 0 ? ",\n\n  and " : " sat on the mat, ");
  }
  write_file(folder / "a.txt", text);
  const std::string chars = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/chars/";
  for (const std::string& path :
       {folder / "tok.json", chars + "llama2.json", chars + "mistral3.json"}) {
    data_pack({.inputs = {folder / "a.txt"},
               .tokenizer = path,
               .out = folder / "a.h5",
               .end_of_document = "none",
               .overwrite = true,
               .quiet = true});
    EXPECT_TRUE(store_tokens(*TokenStore::open(folder / "a.h5")) ==
                Tokenizer::load(path).encode(text))
        << path;
  }
}

TEST(DataPackCommand, RefusesWrongChoices) {
  ScratchFolder folder;
  write_tokenizer(folder / "tok.json");
  const DataPackOptions good{.inputs = {folder / "a.txt"},
                             .tokenizer = folder / "tok.json",
                             .out = folder / "a.h5",
                             .quiet = true};
  const auto expect = [&](const char* part, auto change) {
    DataPackOptions options = good;
    change(options);
    expect_error(ExitCode::usage, {part}, [&] { data_pack(options); });
  };
  expect("--split words", [](DataPackOptions& o) { o.split = "words"; });
  expect("--format xml", [](DataPackOptions& o) { o.format = "xml"; });
  expect("--bad-utf8 maybe", [](DataPackOptions& o) { o.bad_utf8 = "maybe"; });
  expect("\"lots\" is no size", [](DataPackOptions& o) { o.memory = "lots"; });
  DataPackOptions missing = good;
  missing.tokenizer = folder / "none.json";
  expect_error(ExitCode::data, {"none.json"}, [&] { data_pack(missing); });
}

TEST(DataPackCommand, ReadsSizes) {
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("100k"), 102400);
  EXPECT_EQ(parse_bytes("512M"), int64_t{512} << 20);
  EXPECT_EQ(parse_bytes("2G"), int64_t{2} << 30);
  EXPECT_EQ(parse_bytes("1T"), int64_t{1} << 40);
  for (const char* bad : {"", "M", "5X", "-1", "1.5G", "99999999999999999999", "9999999T"}) {
    expect_error(ExitCode::usage, {"is no size"}, [&] { parse_bytes(bad); });
  }
}

}  // namespace
}  // namespace shoestring
