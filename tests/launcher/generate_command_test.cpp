#include "launcher/generate_command.h"

#include <unistd.h>

#include <array>
#include <cstdio>

#include "tests/launcher/text_model_fixture.h"
#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

TEST(GenerateCommand, PrintsThePromptWithItsTextOrJson) {
  const ScratchFolder folder;
  GenerateOptions options{.model = {.path = train_text_model(folder), .threads = 1},
                          .request = {.prompts = {"Anne"}, .max_tokens = 8, .stop = {}}};
  ::testing::internal::CaptureStdout();
  run_generate(options);
  const std::string text = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(text.rfind("Anne", 0), 0u);
  options.json = true;
  ::testing::internal::CaptureStdout();
  run_generate(options);
  const auto json = nlohmann::json::parse(::testing::internal::GetCapturedStdout());
  EXPECT_EQ(json["outputs"][0]["prompt"], "Anne");
  EXPECT_EQ(json["tokens"], 8);
  EXPECT_EQ(json["outputs"][0]["ids"].size(), 8u);
}

// Read through a pipe while it writes: the first prompt's text comes in pieces, each text whole and
// in its turn, whichever ends first.
TEST(GenerateCommand, ShowsABatchAsItArrives) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder);
  const std::vector<std::string> prompts = {"Anne", "Sir Walter", "The"};
  GenerateOptions options{
      .model = {.path = run, .threads = 1},
      .request = {.prompts = {}, .max_tokens = 12, .sampler = {.temperature = 0}, .stop = {}}};
  const auto printed = [&](const std::vector<std::string>& asked) {
    options.request.prompts = asked;
    ::testing::internal::CaptureStdout();
    run_generate(options);
    return ::testing::internal::GetCapturedStdout();
  };
  std::string want;
  for (size_t i = 0; i < prompts.size(); ++i) append(want, "[", i, "] ", printed({prompts[i]}));
  EXPECT_EQ(printed(prompts), want);
  const std::string command =
      cat("GOMP_SPINCOUNT=1000 ", SHOESTRING_BINARY_DIR "/shoestring", " generate --model ", run,
          " --prompt Anne --prompt 'Sir Walter' --max-tokens 50 --temperature 1 2>/dev/null");
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::vector<std::string> pieces;
  std::array<char, 4096> buffer = {};
  for (ssize_t n = 0; (n = read(fileno(pipe), buffer.data(), buffer.size())) > 0;) {
    pieces.emplace_back(buffer.data(), static_cast<size_t>(n));
  }
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_GT(pieces.size(), 5u);  // 50 tokens do not come at once
  EXPECT_EQ(pieces[0].find('\n'), std::string::npos);
}

// Folders of Llama 2 and Mistral hold such tokenizers.
TEST(GenerateCommand, AndOthersWorkWithASentencePieceLikeTokenizer) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder, "tokenizer/chars/mistral3.json");
  const std::string hf = folder / "hf", text = folder / "a.txt";
  write_file(text, "Sir Walter Elliot, of Kellynch Hall\n\u4e42");
  const auto done = [](const std::vector<std::string>& words, const std::string& input = "") {
    const BinaryResult result = run_binary(words, input);
    EXPECT_EQ(result.exit_code, 0) << words[0] << ": " << result.err;
    return result.out;
  };
  done({"export", run, "--format", "hf", "--out", hf});
  EXPECT_EQ(read_file(hf + "/tokenizer.json"),
            read_file(test_data("tokenizer/chars/mistral3.json")));
  EXPECT_EQ(done({"generate", "--model", hf, "--prompt", "Anne", "--max-tokens", "5"}).find("Anne"),
            0u);
  EXPECT_NE(done({"eval", "--model", hf, text}).find("bits_per_byte"), std::string::npos);
  const std::string ids = done({"tokenize", "--tokenizer", hf, "--whole"}, read_file(text));
  EXPECT_EQ(done({"detokenize", "--tokenizer", hf, "--whole"}, ids), read_file(text));
  RunConfig again = small_config(folder, "again");
  again.tokenizer = hf + "/tokenizer.json";
  again.train.init_from = hf;
  again.train.steps = 1;
  again.data.sources = {{.name = "text", .path = folder / "text.h5", .weight = 1, .held_out = {}}};
  again.model =
      LoadedModel({.path = hf, .tokenizer = "", .dtype = "f32", .threads = 1}).config.model;
  train_small(again);
}

// End ids of generation_config.json, and the token that tokenizer.json puts before a text.
TEST(GenerateCommand, FollowsTheFilesBesideTheModel) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder), file = run + "/tokenizer.json";
  const auto ids = [&](const std::string& prompt) {
    const BinaryResult result = run_binary({"generate", "--model", run, "--prompt", prompt,
                                            "--max-tokens", "9", "--temperature", "0", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out)["outputs"][0]["ids"].get<std::vector<int32_t>>();
  };
  const std::vector<int32_t> plain = ids("Anne"), begun = ids("<|endoftext|>Anne");
  ASSERT_EQ(plain.size(), 9u);
  EXPECT_NE(plain, begun);
  nlohmann::json json = nlohmann::json::parse(read_file(file));
  json["post_processor"] = nlohmann::json::parse(R"({"type": "Sequence", "processors": [
      {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}}]})");
  write_file(file, json.dump());
  EXPECT_EQ(ids("Anne"), begun);
  EXPECT_EQ(run_binary({"tokenize", "--tokenizer", file}, "Anne\n").out.find("[0"),
            std::string::npos)
      << "without special tokens";
  write_file(run + "/generation_config.json", cat("{\"eos_token_id\": [", begun[4], ", 7]}"));
  const std::vector<int32_t> cut(begun.begin(), std::find(begun.begin(), begun.end(), begun[4]));
  EXPECT_EQ(ids("Anne"), cut);
}

TEST(GenerateCommand, RefusesAnotherTokenizer) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder), other = test_data("tokenizer/gpt2.json");
  const BinaryResult result =
      run_binary({"generate", "--model", run, "--tokenizer", other, "--prompt", "Anne"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.out, "");
  for (const std::string& hash :
       {Tokenizer::load(other).hash(), Tokenizer::load(run + "/tokenizer.json").hash(), other}) {
    EXPECT_NE(result.err.find(hash), std::string::npos) << result.err;
  }
  EXPECT_EQ(
      run_binary({"eval", "--model", run, "--tokenizer", other, test_data("tiny/persuasion.jsonl")})
          .exit_code,
      3);
}

// Nothing is printed before everything was found right.
TEST(GenerateCommand, RefusesBadRequestsBeforeItPrints) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder);
  const std::vector<std::pair<std::vector<std::string>, int>> cases = {
      {{"--prompt", "Anne", "--max-tokens", "100000"}, 2},
      {{"--prompt", "Anne", "--top-p", "2"}, 2},
      {{"--prompt", "Anne", "--stop", ""}, 2},
      {{"--prompt", "Anne", "--max-tokens", "9223372036854775807"}, 2},
      {{"--prompt", "a\xff"}, 3}};
  for (const auto& [more, code] : cases) {
    std::vector<std::string> words = {"generate", "--model", run};
    words.insert(words.end(), more.begin(), more.end());
    const BinaryResult result = run_binary(words);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_EQ(result.out, "") << more.back();
  }
}

TEST(GenerateCommand, TakesValuesThatBeginWithDashes) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder);
  const auto generate = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"generate", "--model", run, "--max-tokens", "2"};
    words.insert(words.end(), more.begin(), more.end());
    return run_binary(words);
  };
  for (const char* prompt : {"--x", "-y z", "--- a/file", "-1"}) {
    const BinaryResult apart = generate({"--prompt", prompt});
    EXPECT_EQ(apart.exit_code, 0) << apart.err;
    EXPECT_EQ(apart.out.rfind(prompt, 0), 0u) << apart.out;
    EXPECT_EQ(generate({cat("--prompt=", prompt)}).out, apart.out);
  }
  const BinaryResult forgotten = generate({"--prompt", "--json"});
  EXPECT_EQ(forgotten.exit_code, 2);
  EXPECT_NE(forgotten.err.find("--prompt=--json"), std::string::npos) << forgotten.err;
}

}  // namespace
}  // namespace shoestring
