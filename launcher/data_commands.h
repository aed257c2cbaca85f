#pragma once
// The group `data` on the command line: options, help and examples.

#include "launcher/command_groups.h"

namespace shoestring {

void add_data_commands(CLI::App& app, CommandAction& action);

}  // namespace shoestring
