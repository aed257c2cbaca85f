#pragma once
// The command line: `shoestring <command> [options]`.

#include <functional>
#include <span>
#include <string>

namespace shoestring {

// Runs the command that `arguments` (without the program's name) ask for. Results go to standard
// output. Returns the exit code of what ran; throws Error for everything that went wrong, a usage
// error with the nearest name for unknown commands and options included.
int run_command_line(std::span<const std::string> arguments);

// Runs `command` and turns what it throws into one "error: ..." on standard error and an exit code:
// the one catch at the top of every process.
int report_errors(const std::function<int()>& command);

}  // namespace shoestring
