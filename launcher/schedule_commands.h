#pragma once
// `shoestring schedule`.

#include "launcher/command_groups.h"

namespace shoestring {

void add_schedule_commands(CLI::App& app, CommandAction& action);

}  // namespace shoestring
