#include "launcher/export_tokenizer.h"

#include <gtest/gtest.h>

#include "io/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"
#include "tests/launcher/folder_model_fixture.h"

namespace shoestring {
namespace {

using nlohmann::json;

TEST(ExportTokenizer, MakesTheConfigOfABareTokenizer) {
  const ScratchFolder folder;
  const std::string from = tokenizer_file("trained_gpt2.json");
  const Tokenizer tokenizer = Tokenizer::load(from);
  const TokenIds ids = export_tokenizer({.path = from, .folder = folder.path(), .positions = 77});
  EXPECT_EQ(read_file(folder / "tokenizer.json"), read_file(from));
  ASSERT_TRUE(tokenizer.end_of_text_id());
  EXPECT_EQ(ids.end, std::vector<int64_t>{*tokenizer.end_of_text_id()});
  const json config = json::parse(read_file(folder / "tokenizer_config.json"));
  EXPECT_EQ(config["tokenizer_class"], "PreTrainedTokenizerFast");
  EXPECT_EQ(config["model_max_length"], 77);
  EXPECT_EQ(config["eos_token"], "<|endoftext|>");
  EXPECT_EQ(config["added_tokens_decoder"][cat(ids.end[0])]["special"], true);
  EXPECT_EQ(Tokenizer::load(folder.path()).hash(), tokenizer.hash());
}

TEST(ExportTokenizer, KeepsAConfigUnderANameThatAllKnow) {
  const ScratchFolder from, to;
  std::filesystem::copy_file(tokenizer_file("trained_gpt2.json"), from / "tokenizer.json");
  write_file(from / "tokenizer_config.json",
             R"({"tokenizer_class": "TokenizersBackend", "model_max_length": 5, "extra": [1]})");
  write_file(from / "chat_template.jinja", "{{ messages }}");
  write_file(from / "generation_config.json", R"({"bos_token_id": 3, "eos_token_id": [1, 2]})");
  for (const std::string& path : {from.path(), from / "tokenizer.json"}) {
    const TokenIds ids = export_tokenizer({.path = path, .folder = to.path(), .positions = 9});
    EXPECT_EQ(ids.begin, std::vector<int64_t>{3});
    EXPECT_EQ(ids.end, (std::vector<int64_t>{1, 2}));
    const json config = json::parse(read_file(to / "tokenizer_config.json"));
    EXPECT_EQ(config["tokenizer_class"], "PreTrainedTokenizerFast");
    EXPECT_EQ(config["model_max_length"], 5);
    EXPECT_EQ(config["extra"], json::array({1}));
    EXPECT_EQ(read_file(to / "chat_template.jinja"), "{{ messages }}");
  }
  write_file(from / "tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
  export_tokenizer({.path = from.path(), .folder = to.path(), .positions = 9});
  const json config = json::parse(read_file(to / "tokenizer_config.json"));
  EXPECT_EQ(config["tokenizer_class"], "Qwen2Tokenizer");
}

TEST(ExportTokenizer, ReadsTheIdsOfGeneration) {
  const ScratchFolder folder;
  EXPECT_TRUE(generation_ids(folder.path()).end.empty());
  write_file(folder / "generation_config.json", R"({"bos_token_id": null, "eos_token_id": 5})");
  EXPECT_EQ(generation_ids(folder.path()).end, std::vector<int64_t>{5});
  EXPECT_TRUE(generation_ids(folder.path()).begin.empty());
  write_file(folder / "generation_config.json", R"({"eos_token_id": "x"})");
  expect_error(ExitCode::data, {"generation_config.json", "eos_token_id"},
               [&] { generation_ids(folder.path()); });
}

TEST(ExportTokenizer, RefusesAnotherOneThanTheModels) {
  const ScratchFolder folder;
  expect_error(ExitCode::data, {"abc", "--tokenizer PATH"}, [&] {
    export_tokenizer({.path = tokenizer_file("trained_gpt2.json"),
                      .folder = folder.path(),
                      .positions = 9,
                      .trained_hash = "abc",
                      .own = false});
  });
}

TEST(ExportTokenizer, PassesOnWhatItCannotRead) {
  const ScratchFolder from, to;
  const std::string text = R"({"model": {"type": "Unigram"}})";
  write_file(from / "tokenizer.json", text);
  write_file(from / "tokenizer.model", "pieces");
  export_tokenizer({.path = from / "tokenizer.json", .folder = to.path(), .positions = 9});
  EXPECT_EQ(read_file(to / "tokenizer.json"), text);
  EXPECT_EQ(read_file(to / "tokenizer.model"), "pieces");
  EXPECT_THROW(
      export_tokenizer(
          {.path = from / "tokenizer.json", .folder = to.path(), .positions = 9, .own = false}),
      Error);
}

}  // namespace
}  // namespace shoestring
