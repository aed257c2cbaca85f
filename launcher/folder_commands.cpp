#include "launcher/folder_commands.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "launcher/export_command.h"
#include "launcher/import_command.h"

namespace shoestring {
namespace {

void add_import(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand("import", "make a checkpoint of a Hugging Face folder");
  auto o = std::make_shared<ImportOptions>();
  command->add_option("folder", o->folder, "with config.json and safetensors")
      ->type_name("FOLDER")
      ->required();
  command->add_option("--out", o->out, "a new folder, laid out as a run's")
      ->type_name("FOLDER")
      ->required();
  command->add_flag("--force", o->force,
                    "replace an earlier import that is there, and nothing else");
  command->footer(
      "Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen2.5, Qwen3, Qwen3-MoE, Mixtral, DeepSeek-V2\n"
      "and V3 (FP8 blocks too), Moonlight. Every command reads such a folder as it is; an import\n"
      "is for keeping a model as checkpoint and for its config.\n\n"
      "Examples:\n"
      "  shoestring import models/SmolLM2-135M --out runs/smollm\n"
      "  shoestring train my_run.toml --set train.init_from=runs/smollm");
  command->callback([o, &action] {
    action = [o] {
      run_import(*o);
      return 0;
    };
  });
}

void add_export(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand("export", "make a Hugging Face folder of a model");
  auto o = std::make_shared<ExportOptions>();
  command->add_option("model", o->model, "a run's folder, a checkpoint or a Hugging Face folder")
      ->type_name("PATH")
      ->required();
  command->add_option("--format", o->format, "hf")->type_name("NAME")->capture_default_str();
  command->add_option("--out", o->out, "a new folder")->type_name("FOLDER")->required();
  command->add_option("--dtype", o->dtype, "bf16 or f32; default: the run's")->type_name("TYPE");
  command->add_flag("--fp8", o->fp8,
                    "matrices as FP8 with a scale for each block of 128 x 128 (DeepSeek-V3); those "
                    "of other sides stay as they are. Of an FP8 folder: the codes that it had");
  command->add_flag("--no-mtp", o->no_mtp,
                    "without prediction modules, which transformers reports as unexpected keys");
  command->add_option("--shard-size", o->shard_size, "a file's tensors, such as 500MB or 2GiB")
      ->type_name("SIZE")
      ->capture_default_str();
  command->add_option("--tokenizer", o->tokenizer, "default: the one beside the model")
      ->type_name("PATH");
  command->add_flag("--force", o->force,
                    "replace an earlier export that is there, and nothing else");
  command->footer(
      "Writes config.json, generation_config.json, the tokenizer, weights with an index and a\n"
      "model card; transformers 4 and 5 load it. With --fp8 transformers 5 needs accelerate\n"
      "(without a GPU it multiplies the blocks out), transformers 4 a GPU as well.\n\n"
      "Examples:\n"
      "  shoestring export runs/quickstart --format hf --out models/quickstart\n"
      "  shoestring export runs/mini --out models/mini-fp8 --fp8 --shard-size 2GB");
  command->callback([o, &action] {
    action = [o] {
      run_export(*o);
      return 0;
    };
  });
}

}  // namespace

void add_folder_commands(CLI::App& app, CommandAction& action) {
  add_import(app, action);
  add_export(app, action);
}

}  // namespace shoestring
