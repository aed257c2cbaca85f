#pragma once
// `shoestring import` and `shoestring export` on the command line.

#include "launcher/command_groups.h"

namespace shoestring {

void add_folder_commands(CLI::App& app, CommandAction& action);

}  // namespace shoestring
