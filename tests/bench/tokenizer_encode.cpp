// Encodes the lines of a file on some threads and prints seconds, the number of ids and a checksum
// of them: the part of tests/bench/tokenizer_speed that runs our code. Also dumps the ids.
//   tokenizer_encode TOKENIZER TEXT_FILE THREADS REPEATS [IDS_FILE]

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "core/check.h"
#include "io/tokenizer/encoder.h"

namespace shoestring {
namespace {

// Documents of whole lines, at least 4,000 bytes each, as the script cuts them.
std::vector<std::string_view> documents_of(std::string_view text) {
  constexpr size_t least = 4000;
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t newline = text.size() > least ? text.find('\n', least) : std::string_view::npos;
    const size_t size = newline == std::string_view::npos ? text.size() : newline + 1;
    out.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return out;
}

void run(int argc, char** argv) {
  if (argc < 5) {
    fail_usage("tokenizer_encode TOKENIZER TEXT_FILE THREADS REPEATS [IDS_FILE]");
  }
  const Tokenizer tokenizer = Tokenizer::load(argv[1]);
  std::ifstream file(argv[2], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto documents = documents_of(text);
  BatchEncoder encoder(tokenizer, std::atoi(argv[3]));
  std::vector<std::vector<int32_t>> ids;
  for (int repeat = 0; repeat < std::atoi(argv[4]); ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    encoder.encode(documents, ids);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    uint64_t count = 0, sum = 0;
    for (const auto& document : ids) {
      count += document.size();
      for (const int32_t id : document) {
        sum = sum * 31 + static_cast<uint64_t>(id);
      }
    }
    std::printf("%.6f %lu %lu\n", seconds.count(), count, sum);
  }
  if (argc > 5) {
    std::ofstream out(argv[5], std::ios::binary);
    for (const auto& document : ids) {
      const auto size = static_cast<int32_t>(document.size());
      out.write(reinterpret_cast<const char*>(&size), 4);
      out.write(reinterpret_cast<const char*>(document.data()), size * 4);
    }
  }
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  try {
    shoestring::run(argc, argv);
  } catch (const shoestring::Error& error) {
    std::fprintf(stderr, "tokenizer_encode: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
