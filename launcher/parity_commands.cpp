#include "launcher/parity_commands.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>

#include "launcher/parity_command.h"

namespace shoestring {

void add_parity_command(CLI::App& app, CommandAction& action) {
  auto* command = app.add_subcommand(
      "parity", "compare one step under layouts of ranks with one rank, and count what they send");
  auto options = std::make_shared<ParityOptions>();
  command->add_option("config", options->config, "a run's config")->type_name("CONFIG")->required();
  command
      ->add_option("--set", options->overrides, "override one key of the config; may be repeated")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
  command
      ->add_option("--layouts", options->layouts,
                   "all: every legal mesh of --ranks ranks; or a file with a layout a line; "
                   "without it, the config's own")
      ->type_name("all|FILE");
  command
      ->add_option("--ranks", options->ranks,
                   "threads, with --layouts all only; default: the config's")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "a JSON list instead of a table");
  command->footer(
      "Runs the first training step on one rank and, with threads as ranks, under each layout, "
      "from\n"
      "the same weights and data. With train.exact, where no tensor (tp, etp) or context axis "
      "stands,\n"
      "every bit must be one rank's, in bf16 and FP8 too. Otherwise in f32 loss and gradient norm "
      "must\n"
      "agree to 1e-6, the gradient of every parameter to 1e-5 (relative); in bf16 and FP8 the "
      "distance\n"
      "to f64 may be 1.5 times that of one rank. Bytes sent must be those of the formulas, and "
      "peaks of\n"
      "memory those of the forecast, weights, gradients and moments to the byte, the others "
      "within\n"
      "bands (docs/parity.md). Ends with 1 where a layout misses.\n\n"
      "A file of layouts has one a line, in short names or keys of the config; all lines are "
      "checked\n"
      "before the first one runs:\n"
      "  tp=2 pp=2 schedule=zb-v recompute=block\n"
      "  dp=4 zero=1 train.exact=true\n\n"
      "Examples:\n"
      "  shoestring parity configs/runs/tiny.toml --set mesh.tp=2 --set mesh.pp=2\n"
      "  shoestring parity configs/runs/mini-deepseek-v3.toml --layouts all --ranks 4\n"
      "  shoestring parity my.toml --layouts my_layouts.txt --json");
  command->callback([options, &action] {
    action = [options] {
      ProgressLine progress(options->json ? stderr : stdout);
      return run_parity(*options, progress, std::cout) ? 0 : 1;
    };
  });
}

}  // namespace shoestring
