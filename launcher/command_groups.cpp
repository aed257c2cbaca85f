#include "launcher/command_groups.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "core/text.h"
#include "launcher/config_command.h"
#include "launcher/mesh_command.h"

namespace shoestring {
namespace {

int print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

void add_overrides(CLI::App& command, std::vector<std::string>& overrides) {
  command.add_option("--set", overrides, "override one key of the config; may be repeated")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
}

void add_config_show(CLI::App& group, CommandAction& action) {
  auto* command =
      group.add_subcommand("show",
                           "print the resolved config: every key, its value, and the number of "
                           "parameters, total and active");
  auto options = std::make_shared<ConfigShowOptions>();
  command->add_option("file", options->file, "a config; without it, the defaults")
      ->type_name("FILE");
  add_overrides(*command, options->overrides);
  command->add_flag("--comments", options->comments, "write each key's meaning above it");
  command->footer(
      "Examples:\n"
      "  shoestring config show configs/runs/tiny.toml\n"
      "  shoestring config show --comments > my_run.toml      a commented file to start from\n"
      "  shoestring config show my_run.toml --set train.steps=3e4 --set run.directory=runs/b");
  command->callback(
      [options, &action] { action = [options] { return print(config_show(*options)); }; });
}

void add_config_diff(CLI::App& group, CommandAction& action) {
  auto* command = group.add_subcommand("diff", "print the keys in which two configs differ");
  auto files = std::make_shared<std::pair<std::string, std::string>>();
  command->add_option("left", files->first, "a config")->type_name("FILE")->required();
  command->add_option("right", files->second, "another config")->type_name("FILE")->required();
  command->footer("Example:\n  shoestring config diff runs/a/config.toml runs/b/config.toml");
  command->callback([files, &action] {
    action = [files] { return print(config_diff(files->first, files->second)); };
  });
}

}  // namespace

void add_threads(CLI::App& command, int& threads, const char* what) {
  command.add_option("--threads", threads, cat(what, "; default: one a core"))
      ->type_name("N")
      ->check(CLI::Range(1, 4096));
}

void add_config_commands(CLI::App& app, CommandAction& action) {
  auto* group = app.add_subcommand("config", "show, compare and describe configs");
  group->require_subcommand(1);
  group->footer("Try 'shoestring config show --help'.");
  add_config_show(*group, action);
  add_config_diff(*group, action);
  auto* schema = group->add_subcommand("schema", "print a JSON schema of the config");
  schema->footer(
      "Editors complete and check config files with it, for example with the first line\n"
      "  #:schema ./schema.json\n\nExample:\n  shoestring config schema > schema.json");
  schema->callback([&action] { action = [] { return print(config_schema_text()); }; });
  auto* docs = group->add_subcommand("docs", "print the reference page of every key (Markdown)");
  docs->footer("Example:\n  shoestring config docs > docs/config.md");
  docs->callback([&action] { action = [] { return print(config_docs_text()); }; });
}

void add_mesh_command(CLI::App& app, CommandAction& action) {
  auto* command =
      app.add_subcommand("mesh", "show which rank does what under a config, without training");
  auto options = std::make_shared<MeshOptions>();
  command->add_option("config", options->config, "a run's config")->type_name("CONFIG")->required();
  add_overrides(*command, options->overrides);
  command
      ->add_option("--ranks", options->ranks,
                   "as if so many processes had been started; default: the config's")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 16));
  command->add_flag("--json", options->json, "the same as JSON");
  command->footer(
      "Prints the axes, the groups (how many ranks each has, on how many nodes), every rank's "
      "place,\n"
      "the pieces of the model that each pipeline rank holds, micro-batches and ZeRO stage. "
      "A layout\n"
      "that the model, the batches or the schedule do not allow is refused as train would "
      "refuse\n"
      "it. Neither data nor a tokenizer is read.\n\n"
      "Examples:\n"
      "  shoestring mesh configs/runs/tiny.toml --set mesh.tp=2 --set mesh.pp=2\n"
      "  shoestring mesh configs/runs/mini-deepseek-v3.toml --ranks 64 --set mesh.pp=4 \\\n"
      "    --set mesh.ep=8 --set mesh.ranks_per_node=8 --set train.batch=64 --set "
      "train.micro_batch=1");
  command->callback(
      [options, &action] { action = [options] { return print(mesh_text(*options)); }; });
}

}  // namespace shoestring
