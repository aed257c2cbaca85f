#include "launcher/model_commands.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "launcher/eval_command.h"
#include "launcher/generate_command.h"
#include "launcher/logits_command.h"
#include "launcher/train_command.h"

namespace shoestring {
namespace {

void add_train(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand("train", "train a model; goes on where the run left off");
  auto options = std::make_shared<TrainOptions>();
  auto trace = std::make_shared<std::string>();
  command->add_option("config", options->config, "TOML config of the run")
      ->type_name("FILE")
      ->required();
  command
      ->add_option("--set", options->overrides, "override one key of the config; may be repeated")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
  command
      ->add_option("--trace-steps", *trace,
                   "write a Chrome/Perfetto trace of these steps to the run's trace.json")
      ->type_name("FIRST:LAST");
  command->footer(
      "The run's folder (run.directory) receives config.toml, metrics.jsonl, summary.json,\n"
      "checkpoints/ and tensorboard/. Ctrl-C or SIGTERM saves and exits with code 75; the same\n"
      "command then resumes. Several ranks: the axes of [mesh], such as --set mesh.tp=2, as\n"
      "threads of one process, or as processes of mpirun -n N or srun (docs/mesh.md). What the\n"
      "run tells goes to standard output; warnings, errors and the live line of a terminal to\n"
      "standard error.\n\n"
      "Examples:\n"
      "  shoestring train configs/runs/tiny.toml\n"
      "  shoestring train configs/runs/tiny.toml --set train.steps=500 --set run.directory=runs/b\n"
      "  mpirun -n 2 shoestring train configs/runs/tiny.toml --trace-steps 5:6");
  command->callback([options, trace, &action] {
    action = [options, trace] {
      if (!trace->empty()) options->trace = parse_trace_range(*trace);
      return static_cast<int>(run_train(*options));
    };
  });
}

void add_model_request(CLI::App& command, ModelRequest& model) {
  command
      .add_option("--model", model.path,
                  "a run's folder, one of its checkpoints or a Hugging Face folder")
      ->type_name("PATH")
      ->required();
  command.add_option("--dtype", model.dtype, "f32 or bf16; default: as it was trained")
      ->type_name("TYPE");
  add_threads(command, model.threads, "cores to use");
}

void add_tokenizer(CLI::App& command, ModelRequest& model) {
  command.add_option("--tokenizer", model.tokenizer, "default: the one in the model's folder")
      ->type_name("PATH");
}

void add_generate(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand("generate", "write text with a trained model");
  auto o = std::make_shared<GenerateOptions>();
  add_model_request(*command, o->model);
  add_tokenizer(*command, o->model);
  GenerateRequest& r = o->request;
  command
      ->add_option("--prompt", r.prompts,
                   "what the text begins with; may be repeated, texts appear one after the other")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  command->add_option("--max-tokens", r.max_tokens, "new tokens a prompt")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--temperature", r.sampler.temperature, "0: always the likeliest token")
      ->type_name("X")
      ->capture_default_str();
  command->add_option("--top-k", r.sampler.top_k, "draw from the k likeliest; 0: all")
      ->type_name("K")
      ->capture_default_str();
  command->add_option("--top-p", r.sampler.top_p, "draw from the smallest set of this probability")
      ->type_name("P")
      ->capture_default_str();
  command->add_option("--min-p", r.sampler.min_p, "drop tokens below this share of the likeliest")
      ->type_name("P")
      ->capture_default_str();
  command
      ->add_option("--repetition-penalty", r.sampler.repetition_penalty,
                   "above 1: tokens that were there become less likely")
      ->type_name("X")
      ->capture_default_str();
  command->add_option("--seed", r.sampler.seed, "of the draws")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--stop", r.stop, "end before this string; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  command->add_flag("--json", o->json, "print one JSON object");
  command->footer(
      "Examples:\n"
      "  shoestring generate --model runs/quickstart --prompt 'The king'\n"
      "  shoestring generate --model runs/quickstart --prompt A --prompt B --temperature 0 --json");
  command->callback([o, &action] {
    action = [o] {
      run_generate(*o);
      return 0;
    };
  });
}

void add_eval(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand("eval", "loss, perplexity and bits per byte on text files");
  auto o = std::make_shared<EvalOptions>();
  add_model_request(*command, o->model);
  add_tokenizer(*command, o->model);
  command->add_option("files", o->files, "text, .jsonl, .gz, .zst, folders, - for standard input")
      ->type_name("FILE")
      ->required();
  command->add_option("--length", o->length, "tokens a row; default: the run's sequence length")
      ->type_name("N");
  command->add_option("--micro-batch", o->micro_batch, "rows at once")
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", o->json, "print a JSON list of {name, value, unit, goal, met}");
  command->footer(
      "The rate and the time left go to standard error: a live line on a terminal, else a line "
      "every\n"
      "ten seconds.\n\n"
      "Example:\n  shoestring eval --model runs/quickstart notes.txt more.jsonl.gz");
  command->callback([o, &action] {
    action = [o] {
      run_eval(*o);
      return 0;
    };
  });
}

void add_logits(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand("logits", "write a model's raw logits of given ids");
  auto o = std::make_shared<LogitsOptions>();
  add_model_request(*command, o->model);
  command->add_option("--ids", o->ids, "JSON: a list of equally long lists of ids")
      ->type_name("FILE")
      ->required();
  command->add_option("--out", o->out, "safetensors: logits, f32 [batch, sequence, vocabulary]")
      ->type_name("FILE")
      ->required();
  command->add_flag("--overwrite", o->overwrite,
                    "replace any file; without it only logits that this command wrote");
  command->footer(
      "Example:\n"
      "  echo '[[1, 2, 3], [4, 5, 6]]' > ids.json\n"
      "  shoestring logits --model runs/quickstart --ids ids.json --out logits.safetensors");
  command->callback([o, &action] {
    action = [o] {
      run_logits(*o);
      return 0;
    };
  });
}

}  // namespace

void add_model_commands(CLI::App& app, CommandAction& action) {
  add_train(app, action);
  add_generate(app, action);
  add_eval(app, action);
  add_logits(app, action);
}

}  // namespace shoestring
