#include "io/tokenizer/load_json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "core/check.h"
#include "io/tokenizer/tokenizer.h"

namespace shoestring {
namespace {

using nlohmann::json;

const std::string data_folder = SHOESTRING_SOURCE_DIR "/tests/data/tokenizer/";

std::string read(const std::string& name) {
  std::ifstream file(data_folder + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string message_for(const json& root) {
  try {
    Tokenizer::from_json(root.dump(), "broken.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_EQ(std::string(error.what()).find("broken.json"), 0u) << error.what();
    return error.what();
  }
  return "";
}

json small() {
  return json::parse(R"({"added_tokens":[{"id":4,"content":"<x>","special":true}],
    "normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},
    "decoder":{"type":"ByteLevel"},
    "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"abb":3},"merges":["a b","ab b"]}})");
}

TEST(LoadJsonTest, BothFormsOfMergesAreTheSame) {
  const Tokenizer legacy = Tokenizer::from_json(small().dump(), "a");
  json pairs = small();
  pairs["model"]["merges"] = json::parse(R"([["a","b"],["ab","b"]])");
  EXPECT_EQ(legacy.encode("abbab<x>a"), (std::vector<int32_t>{3, 2, 4, 0}));
  EXPECT_EQ(legacy.hash(), Tokenizer::from_json(pairs.dump(), "b").hash());
}

TEST(LoadJsonTest, EachContradictionHasItsMessage) {
  const std::pair<const char*, const char*> changes[] = {
      // JSON patch, words of the message
      {R"([{"op":"remove","path":"/model"}])", "no \"model\""},
      {R"([{"op":"remove","path":"/model/vocab"}])", "no \"vocab\""},
      {R"([{"op":"remove","path":"/model/merges"}])", "no \"merges\""},
      {R"([{"op":"remove","path":"/pre_tokenizer"}])", "ByteLevel"},
      {R"([{"op":"replace","path":"/model/type","value":"Unigram"}])", "Unigram"},
      {R"([{"op":"replace","path":"/model/vocab/b","value":0}])", "two tokens have the id 0"},
      {R"([{"op":"replace","path":"/model/vocab/b","value":4000000000}])", "4000000000"},
      {R"([{"op":"replace","path":"/model/vocab/b","value":-1}])", "-1"},
      {R"([{"op":"replace","path":"/model/vocab/b","value":"1"}])", "'b'"},
      {R"([{"op":"replace","path":"/model/vocab/b","value":1.5}])", "1.5"},
      {R"([{"op":"replace","path":"/model/merges/1","value":"ab z"}])",
       "merge 1 needs the token 'z'"},
      {R"([{"op":"replace","path":"/model/merges/1","value":"b b"}])", "'bb'"},
      {R"([{"op":"replace","path":"/model/merges/0","value":"a b c"}])", "merge 0"},
      {R"([{"op":"replace","path":"/model/merges/0","value":["a"]}])", "merge 0"},
      {R"([{"op":"replace","path":"/model/merges/0","value":7}])", "merge 0"},
      {R"([{"op":"add","path":"/model/byte_fallback","value":true}])", "byte_fallback"},
      {R"([{"op":"add","path":"/model/dropout","value":0.1}])", "dropout"},
      {R"([{"op":"add","path":"/model/end_of_word_suffix","value":"</w>"}])", "</w>"},
      {R"([{"op":"replace","path":"/added_tokens/0/id","value":1}])", "'<x>'"},
      {R"([{"op":"replace","path":"/added_tokens/0/content","value":"ab"}])", "'ab'"},
      {R"([{"op":"replace","path":"/added_tokens/0/content","value":""}])", "empty"},
      {R"([{"op":"remove","path":"/added_tokens/0/id"}])", "\"id\""},
      {R"([{"op":"add","path":"/added_tokens/0/lstrip","value":3}])", "lstrip"},
      {R"([{"op":"replace","path":"/normalizer","value":{"type":"Lowercase"}}])", "Lowercase"},
      {R"([{"op":"replace","path":"/pre_tokenizer","value":{"type":"Metaspace"}}])", "Metaspace"},
      {R"([{"op":"replace","path":"/decoder","value":{"type":"WordPiece"}}])", "WordPiece"},
      {R"([{"op":"replace","path":"/pre_tokenizer","value":{"type":"Sequence","pretokenizers":
         [{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"},{"type":"ByteLevel"}]}}])",
       "("},
      {R"([{"op":"replace","path":"/pre_tokenizer","value":{"type":"Sequence","pretokenizers":
         [{"type":"Split","pattern":{"Regex":"a"},"behavior":"Removed"},{"type":"ByteLevel"}]}}])",
       "Removed"},
  };
  ASSERT_EQ(message_for(small()), "");
  for (const auto& [patch, words] : changes) {
    const std::string message = message_for(small().patch(json::parse(patch)));
    EXPECT_NE(message.find(words), std::string::npos) << patch << "\n gave: " << message;
  }
}

TEST(LoadJsonTest, BrokenAndCutJson) {
  const std::string whole = read("gpt2.json");
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
    EXPECT_THROW(Tokenizer::from_json(whole.substr(0, size), "cut"), Error) << size;
  }
  EXPECT_THROW(Tokenizer::from_json("[]", "x"), Error);
  EXPECT_THROW(Tokenizer::from_json("null", "x"), Error);
  EXPECT_THROW(Tokenizer::from_json("{\"model\":\"\xFF\"}", "x"), Error);
  const std::string deep(100'000, '[');
  EXPECT_THROW(Tokenizer::from_json(deep, "x"), Error);
  json nested = small();
  for (int i = 0; i < 100; ++i) {
    nested["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {nested["pre_tokenizer"]}}};
  }
  EXPECT_NE(message_for(nested).find("too deeply"), std::string::npos);
}

TEST(LoadJsonTest, SplitsByStringsAndByInvertedPatterns) {
  json root = small();
  root["pre_tokenizer"] = json::parse(R"({"type":"Sequence","pretokenizers":[
    {"type":"Split","pattern":{"String":"b"},"behavior":"Isolated","invert":false},
    {"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})");
  EXPECT_EQ(Tokenizer::from_json(root.dump(), "x").encode("abb"), (std::vector<int32_t>{0, 1, 1}));
  root["pre_tokenizer"]["pretokenizers"][0] = {{"type", "Split"},
                                               {"pattern", {{"Regex", patterns::llama3}}},
                                               {"behavior", "Removed"},
                                               {"invert", true}};
  EXPECT_EQ(Tokenizer::from_json(root.dump(), "x").encode("abb"), (std::vector<int32_t>{3}));
}

// Any change to a file gives a tokenizer that works or an Error; never a crash or a hang.
TEST(LoadJsonTest, SurvivesMutations) {
  std::mt19937 random(8);
  const auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  int loaded = 0, refused = 0;
  const std::string pieces[] = {"null",     "{}",         "[]",        "\"\"", "-1", "1e300",
                                "\"type\"", "4294967296", "true",      "\\u0", "}",  "[",
                                ",",        ":",          "\"vocab\"", "0"};
  for (const char* name : {"added.json", "deepseek.json", "llama3.json", "gpt2.json",
                           "chars/llama2.json", "chars/flags_prepend.json"}) {
    // The vocabulary is most of the file: a short head, so that changes hit everything.
    const std::string whole = read(name);
    for (int i = 0; i < 500; ++i) {
      std::string text = whole;
      for (size_t k = 0; k < 1 + below(3); ++k) {
        const bool near_front = random() % 2 == 0;
        const size_t at = below(near_front ? std::min<size_t>(text.size(), 3000) : text.size());
        switch (random() % 4) {
          case 0:
            text[at] = static_cast<char>(random());
            break;
          case 1:
            text.erase(at, 1 + below(12));
            break;
          case 2:
            text.insert(at, pieces[below(std::size(pieces))]);
            break;
          default:
            text.replace(at, 1 + below(6), text.substr(below(text.size()), 1 + below(40)));
        }
      }
      try {
        const Tokenizer tokenizer = Tokenizer::from_json(text, "mutated");
        ++loaded;
        tokenizer.decode(tokenizer.encode("The 123 wörds <|endoftext|> 中文\n\n x"));
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(loaded, 20);
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace shoestring
