// Configs: an input is a TOML text, and after a zero byte one override a line.

#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "launcher/config.h"
#include "launcher/run_config.h"
#include "tests/fuzz/fuzz_target.h"

using namespace shoestring;

namespace {

void read_overrides(std::string_view lines) {
  ConfigSource source;
  while (!lines.empty()) {
    size_t end = lines.find('\n');
    source.overrides.emplace_back(lines.substr(0, end));
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
  }
  read_config<RunConfig>(source);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  std::string_view text = input.substr(0, input.find('\0'));
  // An include would read files that the input names.
  if (text.find("include") != std::string_view::npos) return 0;
  try {
    auto config = parse_config<RunConfig>(text, "fuzz.toml");
    std::string dump = dump_config(config);
    auto again = parse_config<RunConfig>(dump, "dump.toml");
    check(diff_configs(config, again).empty(), "the dump reads back to something else");
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;
  }
  try {
    if (text.size() < input.size()) read_overrides(input.substr(text.size() + 1));
  } catch (const Error& error) {
    if (error.code() != ExitCode::usage) throw;
  }
  return 0;
}
