// safetensors files: the first byte of an input says whether the rest is a file as it is, or a
// header and, after a zero byte, the data, to which the header's length is added here.

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "io/safetensors.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/memory_file.h"

using namespace shoestring;

namespace {

std::string file_of(std::string_view input) {
  if (input[0] & 1) return std::string(input.substr(1));
  input.remove_prefix(1);
  const size_t end = std::min(input.find('\0'), input.size());
  const uint64_t length = end;
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  file += input.substr(0, end);
  if (end < input.size()) file += input.substr(end + 1);
  return file;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const MemoryFile memory(file_of({reinterpret_cast<const char*>(data), size}));
  try {
    const SafetensorsFile file(memory.path());
    for (const SafetensorsEntry& entry : file.header().tensors) {
      check(file.has(entry.name), "a tensor without a name");
      if (!entry.dtype) continue;
      const int64_t n = entry.elements();
      std::vector<std::byte> values(static_cast<size_t>(n) * size_of(*entry.dtype));
      file.read(entry.name, 0, n, *entry.dtype, values.data());
      check(values.size() == entry.end - entry.begin, "a tensor of another size than its range");
      file.release(entry, 0, n);
      if (!is_float(*entry.dtype)) continue;
      std::vector<float> numbers(static_cast<size_t>(n));
      file.read(entry.name, n / 2, n, Dtype::f32, reinterpret_cast<std::byte*>(numbers.data()));
      file.release(entry, n / 3, n / 2);
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::data) throw;
  }
  return 0;
}
