#include "launcher/schedule_commands.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/log.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "launcher/schedule_command.h"
#include "launcher/schedule_picture.h"
#include "launcher/schedule_rehearsal.h"
#include "launcher/schedule_times.h"
#include "launcher/schedule_trace.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

struct Arguments {
  ScheduleOptions options;
  std::vector<std::string> names;
  std::string out, trace;
  std::optional<double> unit_ms = {};
  std::optional<int> expert_ranks = {};
  bool json = false, transfers = false, beside_1f1b = false;
};

void add_sizes(CLI::App& command, ScheduleOptions& o) {
  command.add_option("--ranks", o.ranks, "pipeline ranks, p")
      ->type_name("P")
      ->default_str(cat(usual_pipeline_ranks));
  command.add_option("--micro-batches", o.micro_batches, "of one step, m")
      ->type_name("M")
      ->default_str(cat(usual_micro_batches));
  command.add_option("--chunks", o.chunks, "stages a rank of interleaved-1f1b; default 2")
      ->type_name("V");
  command
      .add_option("--memory-limit", o.memory_limit,
                  "most micro-batches whose activations a rank keeps, for automatic; default p")
      ->type_name("X");
  command
      .add_option(
          "--times", o.times,
          "of one rank's whole share and one micro-batch; comm between ranks; FB an "
          "interleaved pair, F + I + W where it is not given; A2A a dispatch or combine, one "
          "way; experts=0.5/0.5/0.4 F, I and W of a kind of segment")
      ->type_name("TIMES")
      ->default_str(cat("\"", o.times, "\""));
  command
      .add_option(
          "--segments", o.segments,
          "of every stage: edge, attention, mlp, dispatch, experts, combine; pairs then run "
          "interleaved, part by part")
      ->type_name("attention,dispatch,...");
  command.add_flag("--whole", o.whole, "with --segments: pairs stay whole, nothing is hidden");
  command.add_flag("--pairs", o.pairs,
                   "join each backward pass with the forward pass behind it (1f1b)");
}

void add_schedule_choice(CLI::App& command, ScheduleOptions& o) {
  command.add_option("--name", o.name, "see shoestring schedule list")->type_name("NAME");
  command.add_option("--program", o.program_file, "a text program as show prints it; - for input")
      ->type_name("FILE");
  add_sizes(command, o);
}

// `what` returns the exit code.
CLI::App* add_command(CLI::App& group, const char* name, const char* help,
                      const std::shared_ptr<Arguments>& a, CommandAction& action,
                      int (*what)(const Arguments&)) {
  auto* command = group.add_subcommand(name, help);
  command->callback([a, &action, what] { action = [a, what] { return what(*a); }; });
  return command;
}

int list(const Arguments& a) {
  if (!a.json) {
    std::cout << schedule_list_text();
    return 0;
  }
  std::cout << schedule_list_json();
  return 0;
}

int show(const Arguments& a) {
  std::cout << schedule_text(schedule_of(a.options, a.transfers));
  return 0;
}

StepTimes times_for(const ScheduleOptions& o, const Schedule& schedule) {
  const std::string idle = warning_of_times(o.times, schedule);
  if (!idle.empty()) log_warning(idle);
  return times_of(o.times, schedule);
}

// Of the same size, and whole.
ScheduleOptions plain_1f1b(const ScheduleOptions& options, const Placement& where) {
  ScheduleOptions plain = options;
  plain.name = "1f1b";
  plain.program_file.clear();
  plain.ranks = where.ranks;
  plain.micro_batches = where.micros;
  plain.chunks.reset();
  plain.memory_limit.reset();
  plain.pairs = false;
  plain.whole = !options.segments.empty();
  return plain;
}

// A pass of a unit through a rank's whole share lasts 5 ms in each of its stages.
constexpr double usual_ms_of_stage = 5;

int rehearse_it(const Arguments& a) {
  if (a.unit_ms && (!(*a.unit_ms > 0) || *a.unit_ms > 1e5)) {
    fail_usage(cat("--unit-ms must be above 0 and at most 100000 but is ", *a.unit_ms));
  }
  ProgressLine progress(a.json ? stderr : stdout);
  const Schedule schedule = schedule_of(a.options, true);
  const double unit_ms = a.unit_ms.value_or(usual_ms_of_stage * schedule.where.chunks);
  const auto rehearsed = [&](const Schedule& schedule, const StepTimes& times) {
    return rehearse_in_threads(
        schedule, {.times = times, .seconds_per_unit = unit_ms / 1000}, a.expert_ranks.value_or(2),
        [&](const RehearsalPlan& plan) {
          progress.line(cat("rehearsing ", schedule.name, ": ",
                            counted(schedule.where.ranks, "rank"), ", ",
                            counted(schedule.where.micros, "micro-batch", "micro-batches"), ", on ",
                            counted(plan.threads, "thread"), ", ", text_of_seconds(plan.seconds),
                            " by the simulation"));
        });
  };
  if (a.expert_ranks && !rows_travel(schedule)) {
    fail_usage(
        "--expert-ranks has no effect without --segments that travel (dispatch, combine): no rows "
        "do");
  }
  if (parse_times(a.options.times).comm > 0) {
    log_warning("--times: comm has no effect in a rehearsal: nothing makes transfers slow");
  }
  std::vector<Measurement> rows = rehearsed(schedule, times_for(a.options, schedule));
  if (a.beside_1f1b) {
    const ScheduleOptions plain = plain_1f1b(a.options, schedule.where);
    const Schedule beside = schedule_of(plain, true);
    for (Measurement& row : rehearsed(beside, times_of(plain.times, beside))) {
      row.name = cat("1f1b_", row.name);
      row.goal = {};
      rows.push_back(row);
    }
  }
  print_measurements(rows, a.json, std::cout);
  const auto missed = [](const Measurement& row) { return row.met() == false; };
  return std::any_of(rows.begin(), rows.end(), missed) ? 1 : 0;
}

int draw(const Arguments& a) {
  if (a.out != "-") require_replaceable(a.out);
  const Schedule schedule = schedule_of(a.options);
  const std::string svg =
      schedule_svg(schedule, simulate(schedule, times_for(a.options, schedule)));
  if (a.out == "-") {
    std::cout << svg;
    return 0;
  }
  write_file_durably(a.out, svg);
  std::cout << "wrote " << a.out << "\n";
  return 0;
}

int simulate_one(const Arguments& a) {
  const Schedule schedule = schedule_of(a.options);
  const StepTimes times = times_for(a.options, schedule);
  const Simulation simulation = simulate(schedule, times);
  if (!a.trace.empty()) write_schedule_trace(schedule, simulation, times.comm, a.trace);
  std::cout << (a.json ? simulation_json(schedule, simulation)
                       : simulation_table(schedule, simulation));
  return 0;
}

int compare_all(const Arguments& a) {
  ProgressLine progress(stdout);
  print_comparison(a.options, a.names, a.json, progress);
  return 0;
}

void add_rehearse_command(CLI::App& group, CommandAction& action) {
  const auto a = std::make_shared<Arguments>();
  auto* command =
      add_command(group, "rehearse", "run it on threads, with timed waits in place of arithmetic",
                  a, action, rehearse_it);
  add_schedule_choice(*command, a->options);
  command
      ->add_option("--unit-ms", a->unit_ms,
                   "milliseconds of a unit of --times; default 5 for each stage of a rank")
      ->type_name("MS");
  command
      ->add_option("--expert-ranks", a->expert_ranks,
                   "with --segments: threads a pipeline rank, between which rows travel")
      ->type_name("N")
      ->default_str("2");
  command->add_flag("--beside-1f1b", a->beside_1f1b, "the same of 1f1b, whole, beside it");
  command->add_flag("--json", a->json, "rows {name, value, unit, goal, met}");
  command->footer(
      "Ends with 1 where a goal is missed: a makespan of at most 1.05 of the simulation's and, "
      "where "
      "rows\n"
      "can be hidden by the simulation, at most 0.05 of it in which they are not. Work beside it "
      "on "
      "the\n"
      "same machine makes it miss them, the sooner the smaller --unit-ms is.\n"
      "overhead_per_instruction_seconds has no goal: it holds the time that busy cores take to "
      "wake\n"
      "threads (docs/pipeline.md). At most 512 threads.\n\n"
      "Examples:\n"
      "  shoestring schedule rehearse --name zb-v --ranks 8 --micro-batches 16\n"
      "  shoestring schedule rehearse --name dualpipe --ranks 8 --micro-batches 40 --unit-ms 40 "
      "\\\n"
      "    --segments attention,dispatch,experts,combine --times A2A=0.2 --beside-1f1b");
}

}  // namespace

void add_schedule_commands(CLI::App& app, CommandAction& action) {
  auto* group = app.add_subcommand("schedule", "look at pipeline schedules");
  group->require_subcommand(1);
  group->footer(
      "A program is text: a line a rank, <stage><op><micro-batch> parted by blanks, ops F, B, I "
      "and\n"
      "W; & joins a pair that runs interleaved; .2 is a part of a pass, of the stage's segment 2, "
      "and ~\n"
      "marks one that moves rows between ranks.\n\n"
      "Examples:\n"
      "  shoestring schedule list\n"
      "  shoestring schedule show --name zb-h1 --ranks 4 --micro-batches 8\n"
      "  shoestring schedule draw --name dualpipe --ranks 8 --micro-batches 20 --out dualpipe.svg\n"
      "  shoestring schedule simulate --program my.txt --times F=1,I=1.2,W=0.8,comm=0.1 --json\n"
      "  shoestring schedule compare --ranks 8 --micro-batches 32\n"
      "  shoestring schedule rehearse --name zb-v --ranks 8 --micro-batches 16\n"
      "  shoestring schedule rehearse --name dualpipe --ranks 8 --micro-batches 40 --unit-ms 40 "
      "\\\n"
      "    --segments attention,dispatch,experts,combine --times A2A=0.2 --beside-1f1b");
  const auto make = [] { return std::make_shared<Arguments>(); };
  auto a = make();
  auto* command =
      add_command(*group, "list", "the names, what they cost, where from", a, action, list);
  command->add_flag("--json", a->json, "a JSON list");

  a = make();
  command = add_command(*group, "show", "the program of every rank", a, action, show);
  add_schedule_choice(*command, a->options);

  command->add_flag("--transfers", a->transfers,
                    "also when values go from rank to rank: SA, SG send what a stage made, RA, RG "
                    "post the receipt");

  add_rehearse_command(*group, action);

  a = make();
  command = add_command(*group, "draw", "a picture over simulated time", a, action, draw);
  add_schedule_choice(*command, a->options);
  command->add_option("--out", a->out, "an SVG file; - for standard output")
      ->type_name("FILE")
      ->required();

  a = make();
  command =
      add_command(*group, "simulate", "makespan, bubbles and memory", a, action, simulate_one);
  add_schedule_choice(*command, a->options);
  command->add_option("--trace", a->trace, "also write a Chrome/Perfetto trace; a unit is 1 ms")
      ->type_name("FILE");
  command->add_flag("--json", a->json, "makespan, bubble and peak_activations of each rank");

  a = make();
  command = add_command(*group, "compare", "all schedules side by side, a line each as it is ready",
                        a, action, compare_all);
  add_sizes(*command, a->options);
  command->add_option("--names", a->names, "only these")->type_name("NAME")->delimiter(',');
  command->add_flag("--json", a->json, "a JSON list");
}

}  // namespace shoestring
