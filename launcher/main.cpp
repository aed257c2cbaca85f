#include <string>
#include <vector>

#include "core/instruction_set.h"
#include "launcher/command_line.h"
#include "launcher/short_waits.h"
#include "launcher/signals.h"

int main(int argc, char** argv) {
  shoestring::wait_shortly(argv);
  std::vector<std::string> arguments(argv + 1, argv + argc);
  shoestring::ignore_file_size_signal();
  return shoestring::report_errors([&arguments] {
    shoestring::cap_instruction_set_from_environment();
    return shoestring::run_command_line(arguments);
  });
}
