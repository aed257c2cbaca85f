#include "launcher/bench_commands.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "core/log.h"
#include "core/text.h"
#include "launcher/bench_peak_command.h"
#include "launcher/bench_stages_command.h"

namespace shoestring {
namespace {

struct PeakArguments {
  BenchPeakOptions options;
  bool json = false;
};

int print_peak(const PeakArguments& arguments) {
  print_measurements(bench_peak(arguments.options), arguments.json, std::cout);
  return 0;
}

struct StagesArguments {
  BenchStagesOptions options;
  bool json = false;
};

int print_stages(const StagesArguments& arguments) {
  const StagesBench bench = bench_stages(arguments.options);
  std::vector<Measurement> rows = bench.rows;
  // A list has numbers alone: the split stands in them block count by block count.
  for (size_t i = 0; arguments.json && i < bench.blocks.size(); ++i) {
    rows.push_back({cat("layers/", i), static_cast<double>(bench.blocks[i]), "blocks"});
  }
  print_measurements(rows, arguments.json, std::cout);
  if (!arguments.json) std::cout << bench.layers << '\n';
  if (!bench.note.empty()) {
    log_warning(cat(bench.note, "; measure again when it is quiet, or with more --rounds"));
  }
  return 0;
}

void add_stages(CLI::App& group, CommandAction& action) {
  auto* stages =
      group.add_subcommand("stages", "pieces of a pipeline, and the best split of blocks");
  auto arguments = std::make_shared<StagesArguments>();
  stages->add_option("config", arguments->options.config, "a training config")->required();
  stages->add_option("--set", arguments->options.overrides, "section.key=value over the config");
  stages
      ->add_option("--rounds", arguments->options.rounds,
                   "forward and backward passes of each piece, 1 or more; medians count")
      ->capture_default_str();
  stages->add_flag("--json", arguments->json, "a JSON list instead of a table");
  stages->footer(
      "Times one micro-batch's forward and backward pass through the embedding, a block of each\n"
      "kind and the head on this machine, on as many cores as the config's `threads`, and prints\n"
      "the blocks of each stage with which the dearest stage takes least (pipeline.layers). "
      "spread/\n"
      "is how far the middle half of a piece's rounds are apart; above 0.1 a warning says so. "
      "With\n"
      "pipeline.split = \"measured\" training does so by itself when it starts.\n\n"
      "Examples:\n"
      "  shoestring bench stages configs/runs/tiny.toml --set mesh.pp=2\n"
      "  shoestring bench stages configs/runs/mini-deepseek-v3.toml --set mesh.pp=2 --set "
      "pipeline.schedule=dualpipev --json");
  stages->callback(
      [arguments, &action] { action = [arguments] { return print_stages(*arguments); }; });
}

}  // namespace

void add_bench_commands(CLI::App& app, CommandAction& action) {
  auto* group = app.add_subcommand("bench", "measure this machine");
  group->require_subcommand(1);
  group->footer("Try 'shoestring bench peak --help' or 'shoestring bench stages --help'.");
  auto* peak = group->add_subcommand("peak", "matrix products and memory bandwidth");
  auto arguments = std::make_shared<PeakArguments>();
  peak->add_option("--threads", arguments->options.threads, "cores to use, at most 4096; 0 = all")
      ->capture_default_str();
  peak->add_option("--rounds", arguments->options.rounds,
                   "alternating repeats, 1 or more; medians count")
      ->capture_default_str();
  peak->add_option("--largest", arguments->options.largest,
                   "size of the largest square product, from 1024 to 16384; smaller is quicker")
      ->capture_default_str();
  peak->add_option("--dtype", arguments->options.dtype, "f32 or bf16; both where not given");
  peak->add_option(
      "--config", arguments->options.config,
      "a training config: products of its model and micro-batch, the head's too where it "
      "gives model.vocabulary");
  peak->add_option("--set", arguments->options.overrides, "section.key=value over the config");
  peak->add_flag("--json", arguments->json, "a JSON list instead of a table");
  peak->footer(
      "Rates are 2 M N K over the time of a product. The peak is the best of the square products "
      "and\n"
      "of those of a training step (the config's; without one 4,096 tokens, width 512), which "
      "should\n"
      "each reach 0.93 of it.\n"
      "Square products are of 1024 and its doubles up to --largest. Memory: 12 bytes times the "
      "square\n"
      "of --largest (192 MiB at 4096, 3 GiB at 16384) or what the largest product of the config "
      "takes;\n"
      "192 MiB for the bandwidth behind that. Time: about 20 s on two cores as it is; eight times "
      "as\n"
      "long for each doubling of --largest, and in proportion to --rounds.\n\n"
      "Examples:\n"
      "  shoestring bench peak\n"
      "  shoestring bench peak --config configs/runs/tiny.toml --dtype f32\n"
      "  shoestring bench peak --json --rounds 9 --largest 2048");
  add_stages(*group, action);
  peak->callback([arguments, &action] { action = [arguments] { return print_peak(*arguments); }; });
}

}  // namespace shoestring
