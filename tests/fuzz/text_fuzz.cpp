// Text on its way into a store: the first byte of an input says of which kind the rest is.

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "core/check.h"
#include "core/text.h"
#include "io/text_source.h"
#include "tests/fuzz/fuzz_target.h"

using namespace shoestring;

namespace {

// The suffix decides about decompression, so the file needs a name of its own.
class NamedBytes {
 public:
  NamedBytes(std::string_view bytes, std::string_view suffix) {
    int file = ::memfd_create("fuzz", 0);
    check(file >= 0 &&
              ::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
          "cannot keep the input in memory");
    path_ = cat("/tmp/text_fuzz_", ::getpid(), suffix);
    ::unlink(path_.c_str());
    check(::symlink(cat("/proc/self/fd/", file).c_str(), path_.c_str()) == 0, "cannot link");
    file_ = file;
  }
  ~NamedBytes() {
    ::unlink(path_.c_str());
    ::close(file_);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int file_ = -1;
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static constexpr std::string_view suffixes[] = {".txt", ".jsonl", ".txt.gz", ".jsonl.zst"};
  NamedBytes file({reinterpret_cast<const char*>(data) + 1, size - 1}, suffixes[data[0] & 3]);
  TextOptions options;
  options.bad_utf8 = static_cast<BadUtf8>((data[0] >> 2) % 3);
  options.piece_bytes = 64;
  if (data[0] & 16) options.split = DocumentSplit::lines;
  int64_t passed_over = 0;
  try {
    for (const TextInput& input : list_inputs({file.path()}, TextFormat::by_name, &passed_over)) {
      read_documents(input, options, [](auto&&...) {});
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::data) throw;
  }
  return 0;
}
