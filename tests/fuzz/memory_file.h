#pragma once
// The bytes of an input as a file that readers can open and map, without touching a disk.

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : file_(::memfd_create("fuzz", 0)) {
    check(file_ >= 0 &&
              ::write(file_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
          "cannot keep the input in memory");
  }
  ~MemoryFile() { ::close(file_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return cat("/proc/self/fd/", file_); }

 private:
  int file_;
};

}  // namespace shoestring
