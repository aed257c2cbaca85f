#pragma once
// The bytes of an input, decompressed, in bounded memory: plain files, gzip (several members), zstd
// (several frames, windows up to 128 MiB) and standard input ("-"). Which it is follows from the
// first bytes, not from the name. Data errors name the file and the position in it.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace shoestring {

// What has been read of the input itself, before decompression.
struct RawFacts {
  uint64_t bytes = 0;
  uint64_t digest = 0;  // XXH3-64 of those bytes
};

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Reads up to `bytes` > 0; 0 only at the end.
  virtual size_t read(char* to, size_t bytes) = 0;
  virtual RawFacts raw() const = 0;
};

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path);

}  // namespace shoestring
