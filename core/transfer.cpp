#include "core/transfer.h"

#include <cstring>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

void copy_bytes(Stream& stream, std::byte* to, const std::byte* from, size_t bytes) {
  stream.run([to, from, bytes] {
    if (bytes > 0) std::memcpy(to, from, bytes);
  });
}

}  // namespace

void transfer(Stream& stream, const Tensor& to, const Tensor& from) {
  if (to.dtype() != from.dtype() || to.elements() != from.elements()) {
    fail(cat("[transfer] ", from.text(), " cannot be copied into ", to.text()));
  }
  on(stream, "transfer", &copy_bytes, nullptr, to.raw(), from.raw(), to.bytes());
}

}  // namespace shoestring
