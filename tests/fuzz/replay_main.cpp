// Runs a fuzz target on every file of a folder and on fixed mutations of each, without libFuzzer.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/random.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

constexpr uint64_t mutations = 300;  // of each seed

// One to four edits: a bit, a byte, a piece cut out, doubled or cut off.
std::string mutated(std::string text, const shoestring::RandomStream& random, uint64_t number) {
  uint64_t counter = number * 64;
  auto below = [&](size_t n) { return static_cast<size_t>(random.bits(counter++) % n); };
  for (size_t edits = below(4) + 1; edits > 0 && !text.empty(); --edits) {
    size_t at = below(text.size()), length = below(std::min<size_t>(text.size() - at, 64) + 1);
    switch (below(5)) {
      case 0:
        text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        text[at] = static_cast<char>(below(256));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, text.substr(at, length));
        break;
      default:
        text.resize(at);
    }
  }
  return text;
}

void run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  size_t inputs = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      std::string seed{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
      shoestring::RandomStream random(1, entry.path().filename().string());
      for (uint64_t number = 0; number <= mutations; ++number, ++inputs) {
        std::string input = number == 0 ? seed : mutated(seed, random, number);
        try {
          run(input);
        } catch (const std::exception& error) {
          std::fprintf(stderr, "%s, mutation %zu: %s\n", entry.path().c_str(),
                       static_cast<size_t>(number), error.what());
          return 1;
        }
      }
    }
  }
  std::printf("%zu inputs\n", inputs);
  return inputs > 0 ? 0 : 1;
}
