#pragma once
// `shoestring parity` on the command line.

#include "launcher/command_groups.h"

namespace shoestring {

void add_parity_command(CLI::App& app, CommandAction& action);

}  // namespace shoestring
