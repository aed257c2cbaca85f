#include "launcher/data_commands.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "launcher/data_inspect_command.h"
#include "launcher/data_mix_command.h"
#include "launcher/data_pack_command.h"

namespace shoestring {
namespace {

int print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

void add_pack_text_options(CLI::App& command, DataPackOptions& o) {
  command.add_option("--format", o.format, "auto (by the name), text or jsonl")
      ->capture_default_str();
  command
      .add_option("--split", o.split,
                  "what is a document of plain text: file, lines or blank-lines")
      ->capture_default_str();
  command.add_option("--separator", o.separator, "documents of plain text end at this string");
  command.add_option("--field", o.field, "the field of JSON lines that holds the text")
      ->capture_default_str();
  command.add_option("--bad-utf8", o.bad_utf8, "error, replace (by U+FFFD) or keep")
      ->capture_default_str();
}

void add_pack(CLI::App& group, CommandAction& action) {
  auto* command = group.add_subcommand("pack", "tokenize text into a token store");
  auto o = std::make_shared<DataPackOptions>();
  command
      ->add_option("inputs", o->inputs,
                   ".txt, .jsonl (plain, .gz, .zst), folders, or - for standard input")
      ->type_name("INPUT")
      ->required();
  command->add_option("--tokenizer", o->tokenizer, "tokenizer.json, .tiktoken, or a folder")
      ->type_name("PATH")
      ->required();
  command->add_option("--out", o->out, "the token store to write")->type_name("FILE")->required();
  add_pack_text_options(*command, *o);
  command
      ->add_option("--end-of-document", o->end_of_document,
                   "token behind every document, or none; default: the tokenizer's own")
      ->type_name("TOKEN");
  command->add_option("--memory", o->memory, "for text and tokens in flight")
      ->type_name("BYTES")
      ->capture_default_str();
  add_threads(*command, o->threads, "encoders");
  command->add_flag("--overwrite", o->overwrite, "replace the store if it exists");
  command->add_flag("--restart", o->restart, "forget an unfinished packing of this store");
  command->add_flag("--quiet", o->quiet, "no progress");
  command->footer(
      "After a kill or a full disk the same command goes on where it was.\n"
      "Documents of more than 1 MiB are tokenized in pieces, cut between words; only white space\n"
      "between documents is left out.\n\nExamples:\n"
      "  shoestring data pack corpus/ --tokenizer tok/tokenizer.json --out corpus.h5\n"
      "  zcat dump.gz | shoestring data pack - --format jsonl --tokenizer tok --out dump.h5\n"
      "  shoestring data pack book.txt --split blank-lines --tokenizer tok --out book.h5");
  command->callback([o, &action] { action = [o] { return print(data_pack(*o)); }; });
}

void add_inspect(CLI::App& group, CommandAction& action) {
  auto* command = group.add_subcommand("inspect", "say what a token store holds, and verify it");
  auto o = std::make_shared<DataInspectOptions>();
  command->add_option("file", o->file, "a token store")->type_name("FILE")->required();
  command->add_flag("--verify", o->verify, "read every token and compare all digests");
  command->add_flag("--json", o->json, "everything, inputs included, as JSON");
  command->add_option("--document", o->document, "print this document's ids")->type_name("N");
  command->add_option("--tokenizer", o->tokenizer, "with --document: print its text too")
      ->type_name("PATH");
  command->footer(
      "Examples:\n  shoestring data inspect corpus.h5 --verify\n"
      "  shoestring data inspect corpus.h5 --document 0 --tokenizer tok/tokenizer.json");
  command->callback([o, &action] { action = [o] { return print(data_inspect(*o)); }; });
}

void add_mix(CLI::App& group, CommandAction& action) {
  auto* command =
      group.add_subcommand("mix", "print what a run would draw from each of its sources");
  auto o = std::make_shared<DataMixOptions>();
  command->add_option("config", o->config, "the run's config")->type_name("FILE")->required();
  command->add_option("--set", o->overrides, "override one key of the config; may be repeated")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
  command
      ->add_option_function<std::string>(
          "--tokens", [o](const std::string& text) { o->tokens = parse_tokens(text); },
          "length of the run, for example 1e9; default: its train.steps")
      ->type_name("N");
  command->add_flag("--json", o->json, "as JSON");
  command->footer("Example:\n  shoestring data mix configs/runs/tiny.toml --tokens 1000000000");
  command->callback([o, &action] { action = [o] { return print(data_mix(*o)); }; });
}

}  // namespace

void add_data_commands(CLI::App& app, CommandAction& action) {
  auto* group = app.add_subcommand("data", "pack text, look at token stores, plan mixtures");
  group->require_subcommand(1);
  group->footer("Try 'shoestring data pack --help'.");
  add_pack(*group, action);
  add_inspect(*group, action);
  add_mix(*group, action);
}

}  // namespace shoestring
