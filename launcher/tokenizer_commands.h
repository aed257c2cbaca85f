#pragma once
// `tokenize`, `detokenize` and `data train-tokenizer` on the command line: options, help, examples.

#include "launcher/command_groups.h"

namespace shoestring {

// The group `data` is extended if it is there, and made if not.
void add_tokenizer_commands(CLI::App& app, CommandAction& action);

}  // namespace shoestring
