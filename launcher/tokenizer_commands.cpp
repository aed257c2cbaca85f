#include "launcher/tokenizer_commands.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>

#include "launcher/tokenize_command.h"
#include "launcher/train_tokenizer_command.h"

namespace shoestring {
namespace {

std::shared_ptr<TokenizeOptions> add_tokenize_options(CLI::App& command) {
  auto options = std::make_shared<TokenizeOptions>();
  command
      .add_option("--tokenizer", options->tokenizer,
                  "tokenizer.json, a .tiktoken file, or a folder with tokenizer.json")
      ->type_name("PATH")
      ->required();
  return options;
}

void add_tokenize(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand("tokenize", "standard input to token ids");
  auto options = add_tokenize_options(*command);
  command->add_flag("--whole", options->whole, "all of the input is one text; else each line is");
  command->add_flag("--special-as-text", options->special_as_text,
                    "strings such as <|endoftext|> are ordinary text");
  command->footer(
      "Prints one JSON list of ids a text; adds no special tokens.\n\nExample:\n"
      "  echo 'Hello there' | shoestring tokenize --tokenizer tok/tokenizer.json");
  command->callback([options, &action] {
    action = [options] { return run_tokenize(*options, std::cin, std::cout); };
  });
}

void add_detokenize(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand("detokenize", "token ids on standard input to text");
  auto options = add_tokenize_options(*command);
  command->add_flag("--whole", options->whole,
                    "the input is one list, the text is printed as it is");
  command->footer(
      "Reads one JSON list of ids a line, prints one text a line.\n\nExample:\n"
      "  shoestring tokenize --whole --tokenizer tok < a.txt | "
      "shoestring detokenize --whole --tokenizer tok");
  command->callback([options, &action] {
    action = [options] { return run_detokenize(*options, std::cin, std::cout); };
  });
}

// One line that is written over on a terminal; nothing elsewhere.
void show_progress(const std::string& line) {
  if (isatty(STDERR_FILENO)) {
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
  }
}

int run_train(const TrainTokenizerOptions& options) {
  const std::string told = train_tokenizer(options, show_progress);
  show_progress("");
  std::fwrite(told.data(), 1, told.size(), stdout);
  return 0;
}

void add_train(CLI::App& group, CommandAction& action) {
  auto* command = group.add_subcommand("train-tokenizer", "train a byte-level BPE tokenizer");
  auto options = std::make_shared<TrainTokenizerOptions>();
  command
      ->add_option("inputs", options->inputs,
                   ".txt, .jsonl (plain, .gz, .zst), folders, or - for standard input")
      ->type_name("INPUT")
      ->required();
  command->add_option("--out", options->out, "a .json file, or a folder to hold tokenizer.json")
      ->type_name("PATH")
      ->required();
  command
      ->add_option("--vocabulary-size,--vocabulary", options->vocabulary_size,
                   "tokens, with the 256 bytes and <|endoftext|>")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--pattern", options->pattern, "how text is cut into words: gpt2 or llama3")
      ->capture_default_str();
  command->add_option("--field", options->field, "the field of JSON lines that holds the text")
      ->capture_default_str();
  command->add_option("--bad-utf8", options->bad_utf8, "error, replace (by U+FFFD) or keep")
      ->capture_default_str();
  command
      ->add_option("--min-frequency", options->min_frequency,
                   "leave out merges of pairs that occur less often")
      ->capture_default_str();
  add_threads(*command, options->threads, "for counting words");
  command->add_flag("--overwrite", options->overwrite, "replace a tokenizer that is there");
  command->footer(
      "The tokenizer.json is complete: other programs load it as it is.\n\nExamples:\n"
      "  shoestring data train-tokenizer corpus.txt --vocabulary-size 8192 --out tok/\n"
      "  shoestring data train-tokenizer corpus/ more.jsonl.zst --pattern llama3 --out tok/");
  command->callback([options, &action] { action = [options] { return run_train(*options); }; });
}

}  // namespace

void add_tokenizer_commands(CLI::App& app, CommandAction& action) {
  add_tokenize(app, action);
  add_detokenize(app, action);
  CLI::App* data = nullptr;
  for (CLI::App* command : app.get_subcommands({})) {
    data = command->get_name() == "data" ? command : data;
  }
  if (data == nullptr) {
    data = app.add_subcommand("data", "prepare text for training");
    data->require_subcommand(1);
    data->footer("Try 'shoestring data train-tokenizer --help'.");
  }
  add_train(*data, action);
}

}  // namespace shoestring
