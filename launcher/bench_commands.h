#pragma once
// `shoestring bench ...` on the command line: options, help and examples.

#include "launcher/command_groups.h"

namespace shoestring {

void add_bench_commands(CLI::App& app, CommandAction& action);

}  // namespace shoestring
