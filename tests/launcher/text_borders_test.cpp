#include "launcher/text_borders.h"

#include <gtest/gtest.h>

#include "nlohmann/json.hpp"
#include "tests/launcher/folder_model_fixture.h"

namespace shoestring {
namespace {

using Json = nlohmann::json;

Json template_of(const std::string& token) {
  Json single = Json::array();
  single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  single.push_back({{"SpecialToken", {{"id", "<|endoftext|>"}, {"type_id", 0}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}};
}

std::vector<int32_t> ids_with(const ScratchFolder& folder, const Json& processor) {
  Json root = Json::parse(read_file(tokenizer_file("trained_gpt2.json")));
  root["post_processor"] = processor;
  write_file(folder / "tokenizer.json", root.dump());
  const Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
  const std::vector<int32_t> ids = ids_before_text(folder / "tokenizer.json", tokenizer);
  EXPECT_EQ(ids, ids_before_text(folder.path(), tokenizer)) << "by its folder";
  return ids;
}

// transformers 5.23 gives [1000, 71, 72] for "hi" with this tokenizer.
TEST(TextBorders, BeginWithWhatTheTemplatePutsFirst) {
  const std::string llama3 = tokenizer_file("llama3.json");
  EXPECT_EQ(ids_before_text(llama3, Tokenizer::load(llama3)), std::vector<int32_t>{1000});
  const ScratchFolder folder;
  const std::string end = "<|endoftext|>";
  const int32_t id = *Tokenizer::load(tokenizer_file("trained_gpt2.json")).end_of_text_id();
  EXPECT_EQ(ids_with(folder, template_of(end)), std::vector<int32_t>{id});
  const Json byte_level = {{"type", "ByteLevel"}};
  EXPECT_EQ(ids_with(folder, {{"type", "Sequence"},
                              {"processors", Json::array({byte_level, template_of(end)})}}),
            std::vector<int32_t>{id});
  Json several = template_of("both");  // a name that stands for two ids
  several["special_tokens"]["both"] = {{"id", "both"}, {"ids", {3, id}}, {"tokens", {"a", "b"}}};
  EXPECT_EQ(ids_with(folder, several), (std::vector<int32_t>{3, id}));
  for (const Json& none : {Json(), byte_level, Json{{"type", "TemplateProcessing"}}}) {
    EXPECT_TRUE(ids_with(folder, none).empty());
  }
}

TEST(TextBorders, RefuseTokensThatAreNone) {
  const ScratchFolder folder;
  expect_error(ExitCode::data, {"tokenizer.json", "post_processor", "\"<none>\""},
               [&] { ids_with(folder, template_of("<none>")); });
  Json far = template_of("far");
  for (const Json& id : {Json(1 << 30), Json(-1), Json(int64_t{1} << 40), Json("3"), Json(0.5)}) {
    far["special_tokens"]["far"]["ids"] = Json::array({id});
    expect_error(ExitCode::data, {"tokenizer.json", id.dump()}, [&] { ids_with(folder, far); });
  }
}

TEST(TextBorders, EndWithTheIdsOfBothConfigs) {
  const ScratchFolder folder;
  const std::string path = copy_with_tokenizer("llama", folder);
  const auto ends = [&] {
    return text_borders(LoadedModel({.path = path, .dtype = "f32", .threads = 1})).end;
  };
  Json config = Json::parse(read_file(path + "/config.json"));
  config["eos_token_id"] = 11;
  write_file(path + "/config.json", config.dump());
  EXPECT_EQ(ends(), (std::vector<int64_t>{11}));
  write_file(path + "/generation_config.json", R"({"eos_token_id": [12, 13]})");
  EXPECT_EQ(ends(), (std::vector<int64_t>{11, 12, 13}));
  config["eos_token_id"] = {11, 14};
  write_file(path + "/config.json", config.dump());
  EXPECT_EQ(ends(), (std::vector<int64_t>{11, 14, 12, 13}));
  write_file(path + "/generation_config.json", R"({"eos_token_id": "x"})");
  expect_error(ExitCode::data, {"generation_config.json", "eos_token_id"}, ends);
}

}  // namespace
}  // namespace shoestring
