#pragma once
// The commands, by group: names, options, help texts and examples. What they do stands in the
// launcher/*_command files.

#include <functional>

namespace CLI {
class App;
}

namespace shoestring {

// What the parsed command line asks for; returns the exit code. Empty until a command was parsed.
using CommandAction = std::function<int()>;

// --threads N, at least 1 and at most what a machine may have; without it `threads` stays as it is.
void add_threads(CLI::App& command, int& threads, const char* what);

void add_config_commands(CLI::App& app, CommandAction& action);
void add_mesh_command(CLI::App& app, CommandAction& action);

}  // namespace shoestring
