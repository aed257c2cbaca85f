#include "io/tokenizer/load_char_level.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/tokenizer/tokenizer.h"

namespace shoestring {
namespace {

using nlohmann::json;

json golden(const std::string& kind) {
  return json::parse(
      std::ifstream(SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/chars/" + kind + ".json"));
}

Tokenizer load(const json& root) { return Tokenizer::from_json(root.dump(), "chars.json"); }

std::string message_for(const json& root) {
  try {
    load(root);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_EQ(std::string(error.what()).find("chars.json"), 0u) << error.what();
    return error.what();
  }
  return "";
}

TEST(LoadCharLevelTest, ReadsThePipeline) {
  const auto chars_of = [](const char* kind) { return *load(golden(kind)).data().chars; };
  const CharLevel llama = chars_of("llama2");
  EXPECT_TRUE(llama.prepend && llama.early && llama.names_bytes && llama.fuse_unknown);
  EXPECT_EQ(llama.scheme, CharLevel::Scheme::never);
  EXPECT_EQ(llama.strip, 1);
  EXPECT_EQ(llama.unknown, 0);
  const CharLevel mistral = chars_of("mistral3");
  EXPECT_FALSE(mistral.prepend || mistral.early || mistral.split);
  EXPECT_EQ(mistral.scheme, CharLevel::Scheme::first);
  EXPECT_TRUE(chars_of("flags_always_split").split);
  EXPECT_EQ(chars_of("gemma").strip, 0);
  EXPECT_EQ(load(golden("unknown")).data().byte_ids[10], -1);
  EXPECT_GE(load(golden("llama2")).data().byte_ids[10], 0);
}

TEST(LoadCharLevelTest, BothFormsOfMergesAreTheSame) {
  json root = golden("llama2");
  ASSERT_TRUE(root["model"]["merges"][0].is_string());
  const std::string hash = load(root).hash();
  for (json& merge : root["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  EXPECT_EQ(load(root).hash(), hash);
}

TEST(LoadCharLevelTest, TheHashFollowsWhatDecidesIds) {
  const json root = golden("flags_first_whole");
  const std::string hash = load(root).hash();
  const std::pair<const char*, const char*> changes[] = {
      {"/pre_tokenizer/prepend_scheme", "\"always\""},
      {"/pre_tokenizer/split", "true"},
      {"/model/fuse_unk", "false"},
      {"/model/byte_fallback", "false"},
      {"/model/unk_token", "\"<s>\""},
      {"/decoder/decoders/3/start", "0"},
      {"/model/ignore_merges", "true"}};
  for (const auto& [path, value] : changes) {
    json changed = root;
    changed[json::json_pointer(path)] = json::parse(value);
    EXPECT_NE(load(changed).hash(), hash) << path;
  }
}

TEST(LoadCharLevelTest, TheOlderWayToSayNever) {
  json root = golden("flags_never_whole");
  const std::string hash = load(root).hash();
  root["pre_tokenizer"].erase("prepend_scheme");
  EXPECT_NE(load(root).hash(), hash);
  root["pre_tokenizer"]["add_prefix_space"] = false;
  EXPECT_EQ(load(root).hash(), hash);
}

TEST(LoadCharLevelTest, EachContradictionHasItsMessage) {
  const std::pair<const char*, const char*> changes[] = {
      {R"([{"op":"replace","path":"/model/type","value":"Unigram"}])", "Unigram"},
      {R"([{"op":"replace","path":"/normalizer","value":{"type":"Lowercase"}}])", "Lowercase"},
      {R"([{"op":"replace","path":"/normalizer","value":{"type":"Prepend","prepend":"x"}}])",
       "Prepend"},
      {R"([{"op":"replace","path":"/normalizer","value":{"type":"Replace","content":"▁",
          "pattern":{"Regex":" +"}}}])",
       "Replace"},
      {R"([{"op":"replace","path":"/pre_tokenizer","value":null}])", "neither a ByteLevel"},
      {R"([{"op":"replace","path":"/pre_tokenizer","value":{"type":"Whitespace"}}])", "Whitespace"},
      {R"([{"op":"replace","path":"/pre_tokenizer/replacement","value":"_"}])", "U+2581"},
      {R"([{"op":"replace","path":"/pre_tokenizer/prepend_scheme","value":"maybe"}])", "maybe"},
      {R"([{"op":"replace","path":"/pre_tokenizer/split","value":"yes"}])", "split"},
      {R"([{"op":"replace","path":"/decoder","value":null}])", "the decoder is missing"},
      {R"([{"op":"replace","path":"/decoder","value":{"type":"Metaspace"}}])",
       "the decoder Metaspace"},
      {R"([{"op":"remove","path":"/decoder/decoders/1"}])", "ByteFallback"},
      {R"([{"op":"remove","path":"/decoder/decoders/2"}])", "Fuse"},
      {R"([{"op":"replace","path":"/decoder/decoders/3/stop","value":1}])", "Strip"},
      {R"([{"op":"replace","path":"/decoder/decoders/3/start","value":-1}])", "Strip"},
      {R"([{"op":"replace","path":"/model/vocab/<0x0A>","value":0}])", "two tokens have the id 0"},
      {R"([{"op":"replace","path":"/added_tokens/0/id","value":5}])", "the vocabulary says 0"},
      {R"([{"op":"replace","path":"/added_tokens/0/content","value":"other"}])", "'<unk>'"},
      {R"([{"op":"replace","path":"/model/merges/0","value":["▁","no such piece"]}])",
       "no such piece"},
      {R"([{"op":"replace","path":"/model/unk_token","value":7}])", "unk_token"},
  };
  const json root = golden("mistral3");
  ASSERT_EQ(message_for(root), "");
  for (const auto& [patch, words] : changes) {
    const std::string message = message_for(root.patch(json::parse(patch)));
    EXPECT_NE(message.find(words), std::string::npos) << patch << "\n gave: " << message;
  }
  json nested = root;
  for (int i = 0; i < 100; ++i) {
    nested["normalizer"] = {{"type", "Sequence"}, {"normalizers", {nested["normalizer"]}}};
  }
  EXPECT_NE(message_for(nested).find("too deeply"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
