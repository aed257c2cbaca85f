#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "tests/support/run_binary.h"

namespace shoestring {
namespace {

// The commands that a help text lists.
std::vector<std::string> listed_commands(const std::string& help) {
  std::vector<std::string> names;
  std::istringstream lines(help.substr(std::min(help.size(), help.find("Subcommands:"))));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line) && line.starts_with("  ")) {
    if (line[2] != ' ') names.push_back(line.substr(2, line.find(' ', 2) - 2));
  }
  return names;
}

void check_help(const std::vector<std::string>& path, int& leaves) {
  std::vector<std::string> arguments = path;
  arguments.push_back("--help");
  BinaryResult result = run_binary(arguments);
  EXPECT_EQ(result.exit_code, 0) << path.back();
  std::vector<std::string> children = listed_commands(result.out);
  if (children.empty()) {
    ++leaves;
    EXPECT_NE(result.out.find("Example"), std::string::npos) << result.out;
  }
  for (const std::string& child : children) {
    std::vector<std::string> next = path;
    next.push_back(child);
    check_help(next, leaves);
  }
}

TEST(CommandGroups, EveryCommandHasHelpWithAnExample) {
  int leaves = 0;
  for (const std::string& name : listed_commands(run_binary({"--help"}).out)) {
    check_help({name}, leaves);
  }
  EXPECT_GE(leaves, 4);
}

}  // namespace
}  // namespace shoestring
