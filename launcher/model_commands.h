#pragma once
// train, generate, eval and logits on the command line: options, help and examples.

#include "launcher/command_groups.h"

namespace shoestring {

void add_model_commands(CLI::App& app, CommandAction& action);

}  // namespace shoestring
