#include "launcher/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <new>
#include <string_view>

#include "core/check.h"
#include "core/log.h"
#include "core/nearest_name.h"
#include "core/text.h"
#include "launcher/bench_commands.h"
#include "launcher/command_groups.h"
#include "launcher/data_commands.h"
#include "launcher/folder_commands.h"
#include "launcher/model_commands.h"
#include "launcher/parity_commands.h"
#include "launcher/schedule_commands.h"
#include "launcher/tokenizer_commands.h"
#include "parallel/comm/rank_environment.h"
#include "parallel/comm/rank_failure.h"

namespace shoestring {
namespace {

constexpr const char* program_help =
    "Pretrains language models from a config: text in, model out.\n"
    "Exit codes: 0 done, 1 a comparison outside its limits, 2 usage or config, 3 data, 4 fault, "
    "75\n"
    "preempted (start again to resume). The help of each command lists its own.";

constexpr const char* program_footer = "Every command has its own --help with examples.";

// "shoestring config show"
std::string full_name(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent == nullptr ? command.get_name() : cat(full_name(*parent), " ", command.get_name());
}

// Behind a command's own help; groups of commands have none.
std::string text_of_exit_codes(const CLI::App& command) {
  if (!command.get_subcommands({}).empty()) return {};
  const std::string& name = command.get_name();
  const bool whole =
      command.get_parent() != nullptr && command.get_parent()->get_parent() == nullptr;
  std::string text = "\nExit codes: 0 done, ";
  if (whole && name == "parity") text += "1 a layout misses its limits, ";
  if (name == "rehearse") text += "1 a goal is missed, ";
  text += "2 usage or config, 3 data, 4 fault";
  if (whole && name == "train") text += ", 75 preempted (start again to resume)";
  return text + "\n";
}

const CLI::App* find_command(const CLI::App& app, std::string_view name) {
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() == name) return command;
  }
  return nullptr;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

[[noreturn]] void fail_unknown(const std::string& kind, const std::string& name,
                               const std::vector<std::string>& known, const CLI::App& command) {
  std::string message = cat("unknown ", kind, " '", name, "'");
  std::string nearest = nearest_name(name, known);
  if (!nearest.empty()) append(message, "; did you mean '", nearest, "'?");
  fail_usage(cat(message, "\nsee ", full_name(command), " --help"));
}

// Walks down the names of commands; returns the last one named. CLI11 would call an unknown command
// a superfluous argument.
const CLI::App& named_command(const CLI::App& app, std::span<const std::string> arguments) {
  const CLI::App* command = &app;
  for (const std::string& argument : arguments) {
    std::vector<std::string> names = command_names(*command);
    if (names.empty() || argument.starts_with("-")) break;
    const CLI::App* child = find_command(*command, argument);
    if (child == nullptr) fail_unknown("command", argument, names, *command);
    command = child;
  }
  return *command;
}

const CLI::Option* find_option(const CLI::App& command, const std::string& argument) {
  const std::string name = argument.substr(0, argument.find('='));
  for (const CLI::Option* option : command.get_options()) {
    if (option->check_name(name)) return option;
  }
  return nullptr;
}

// CLI11 takes every word that begins with a dash for an option. Behind an option that wants a value
// it is that value (a prompt may begin with dashes) unless it is an option of the command.
std::vector<std::string> join_values(const CLI::App& command,
                                     std::span<const std::string> arguments) {
  std::vector<std::string> joined;
  for (size_t i = 0; i < arguments.size(); ++i) {
    joined.push_back(arguments[i]);
    if (arguments[i] == "--") {
      joined.insert(joined.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                    arguments.end());
      break;
    }
    if (!arguments[i].starts_with("--") || i + 1 == arguments.size()) continue;
    const std::string& next = arguments[i + 1];
    if (!next.starts_with("-") || next == "-" || next == "--") continue;
    const CLI::Option* option = find_option(command, arguments[i]);
    const bool wants = option != nullptr && option->get_items_expected_min() > 0 &&
                       arguments[i].find('=') == std::string::npos;
    if (!wants) continue;
    if (find_option(command, next) != nullptr) {
      fail_usage(cat(arguments[i], " needs a value, but ", next,
                     " follows, an option itself; if it is meant as the value, write ",
                     arguments[i], "=", next, "\nsee ", full_name(command), " --help"));
    }
    append(joined.back(), "=", arguments[++i]);
  }
  return joined;
}

// Options that the command does not have, with the nearest one that it has.
void check_options(const CLI::App& command, std::span<const std::string> arguments) {
  std::vector<std::string> known;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back(cat("--", name));
  }
  for (const std::string& argument : arguments) {
    if (argument == "--") return;
    if (!argument.starts_with("--")) continue;
    std::string name = argument.substr(0, argument.find('='));
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      fail_unknown("option", name, known, command);
    }
  }
}

// CLI11 says "Could not convert: --ranks = 8.5", which leaves open what it wants.
std::string text_of_conversion(const std::string& message) {
  constexpr std::string_view start = "Could not convert: ", between = " = ";
  const size_t equals = message.find(between);
  if (!message.starts_with(start) || equals == std::string::npos) return message;
  const std::string name = message.substr(start.size(), equals - start.size());
  const std::string value = message.substr(equals + between.size());
  char* end = nullptr;
  std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0') return cat(name, " must be a number but is '", value, "'");
  const bool whole = value.find_first_not_of("+-0123456789") == std::string::npos;
  return cat(name, whole ? " is too large a number: '" : " must be a whole number but is '", value,
             "'");
}

// What was printed may not have been written: a full disk tells only now.
void flush_output() {
  errno = 0;
  std::cout.flush();
  const bool flushed = std::fflush(stdout) == 0;
  const int error = errno;
  if (flushed && std::cout && std::ferror(stdout) == 0) return;
  fail_data(cat("the output could not be written to standard output",
                error != 0 ? cat(": ", std::strerror(error)) : std::string(),
                "; it is incomplete: free space or write it elsewhere, and run the command again"));
}

}  // namespace

int run_command_line(std::span<const std::string> words) {
  CLI::App app(program_help, "shoestring");
  app.footer(program_footer);
  app.set_version_flag("--version", "shoestring 0.1.0");
  app.require_subcommand(1);
  CommandAction action;
  add_model_commands(app, action);
  add_folder_commands(app, action);
  add_data_commands(app, action);
  add_bench_commands(app, action);
  add_schedule_commands(app, action);
  add_parity_command(app, action);
  add_mesh_command(app, action);
  add_config_commands(app, action);
  add_tokenizer_commands(app, action);  // after the other commands of the group `data`

  const CLI::App& command = named_command(app, words);
  const std::vector<std::string> arguments = join_values(command, words);
  check_options(command, arguments);
  // CLI11 takes arguments from the back.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    const CLI::App* parent = command.get_parent();
    std::string help = command.help(parent == nullptr ? "" : full_name(*parent));
    if (parent != nullptr) help += text_of_exit_codes(command);
    std::fwrite(help.data(), 1, help.size(), stdout);
    flush_output();
    return 0;
  } catch (const CLI::CallForVersion& version) {
    std::printf("%s\n", version.what());
    flush_output();
    return 0;
  } catch (const CLI::ParseError& error) {
    std::string message = text_of_conversion(error.what());
    if (std::vector<std::string> names = command_names(command); !names.empty()) {
      message = "a command is missing; there are";
      for (const std::string& name : names) append(message, " ", name);
    }
    fail_usage(cat(message, "\nsee ", full_name(command), " --help"));
  }
  const int code = action();
  flush_output();
  return code;
}

namespace {

constexpr std::chrono::seconds lead{2};  // of the first process, in telling what failed

// 0 also where the variables of a launcher contradict each other: that is an error of its own.
int process_rank() {
  try {
    const auto place = rank_place();
    return place ? place->rank : 0;
  } catch (const Error&) {
    return 0;
  }
}

}  // namespace

int report_errors(const std::function<int()>& command) {
  try {
    return command();
  } catch (const Error& error) {
    // Every process of a parallel start reads the same command line and files.
    await_turn(turn_of_rank(process_rank(), lead));
    log_error(text_of_error(error));
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    log_error(
        "out of memory; a smaller train.micro_batch or train.recompute = \"block\" needs less");
  } catch (const std::exception& error) {
    log_error(error.what());
  }
  return static_cast<int>(ExitCode::fault);
}

}  // namespace shoestring
