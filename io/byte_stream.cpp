#include "io/byte_stream.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr size_t kBuffer = 256 << 10;

struct StateDeleter {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

// The file itself: a buffer that decoders take from, and the digest of all that was read.
class RawInput {
 public:
  explicit RawInput(const std::string& path)
      : path_(path == "-" ? "standard input" : path), state_(XXH3_createState()) {
    XXH3_64bits_reset(state_.get());
    descriptor_ = path == "-" ? ::dup(0) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail_data(cat("cannot read ", path_, ": ", std::strerror(errno)));
    if (path != "-") ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  ~RawInput() { ::close(descriptor_); }
  RawInput(const RawInput&) = delete;
  RawInput& operator=(const RawInput&) = delete;

  // Reads on until at least `wanted` bytes are there or the input ends.
  bool fill(size_t wanted) {
    while (end_ - begin_ < wanted) {
      if (begin_ > 0) std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
      const ssize_t got = ::read(descriptor_, buffer_.data() + end_, buffer_.size() - end_);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        fail_data(
            cat("cannot read ", path_, " at byte ", facts_.bytes, ": ", std::strerror(errno)));
      }
      if (got == 0) return false;
      XXH3_64bits_update(state_.get(), buffer_.data() + end_, static_cast<size_t>(got));
      facts_.bytes += static_cast<uint64_t>(got);
      end_ += static_cast<size_t>(got);
    }
    return true;
  }
  const char* data() const { return buffer_.data() + begin_; }
  size_t available() const { return end_ - begin_; }
  void take(size_t bytes) { begin_ += bytes; }
  uint64_t position() const { return facts_.bytes - available(); }
  bool starts_with(const char* magic, size_t bytes) {
    return fill(bytes) && std::memcmp(data(), magic, bytes) == 0;
  }
  const std::string& path() const { return path_; }
  RawFacts facts() const { return {facts_.bytes, XXH3_64bits_digest(state_.get())}; }

 private:
  std::string path_;
  int descriptor_ = -1;
  std::unique_ptr<XXH3_state_t, StateDeleter> state_;
  std::vector<char> buffer_ = std::vector<char>(kBuffer);
  size_t begin_ = 0, end_ = 0;
  RawFacts facts_;
};

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(std::unique_ptr<RawInput> input) : input_(std::move(input)) {}
  size_t read(char* to, size_t bytes) override {
    input_->fill(1);
    const size_t n = std::min(bytes, input_->available());
    std::memcpy(to, input_->data(), n);
    input_->take(n);
    return n;
  }
  RawFacts raw() const override { return input_->facts(); }

 private:
  std::unique_ptr<RawInput> input_;
};

class GzipStream : public ByteStream {
 public:
  explicit GzipStream(std::unique_ptr<RawInput> input) : input_(std::move(input)) {
    if (inflateInit2(&state_, 15 + 16) != Z_OK) fail("zlib does not start");
  }
  ~GzipStream() override { inflateEnd(&state_); }

  size_t read(char* to, size_t bytes) override {
    while (true) {
      if (!inside_ && !input_->fill(1)) return 0;
      inside_ = true;
      if (!input_->fill(1))
        fail_data(cat(input_->path(), " is truncated: its gzip data ends at ", "byte ",
                      input_->position()));
      const size_t given = std::min<size_t>(input_->available(), kBuffer);
      state_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input_->data()));
      state_.avail_in = static_cast<uInt>(given);
      state_.next_out = reinterpret_cast<Bytef*>(to);
      state_.avail_out = static_cast<uInt>(std::min<size_t>(bytes, 1 << 30));
      const size_t room = state_.avail_out;
      const int status = inflate(&state_, Z_NO_FLUSH);
      input_->take(given - state_.avail_in);
      if (status != Z_OK && status != Z_STREAM_END) {
        fail_data(cat(input_->path(), " is damaged: bad gzip data near byte ", input_->position(),
                      state_.msg == nullptr ? "" : cat(" (", state_.msg, ")")));
      }
      if (status == Z_STREAM_END) {  // another member may follow
        inflateReset(&state_);
        inside_ = false;
      }
      const size_t got = room - state_.avail_out;
      if (got > 0) return got;
    }
  }
  RawFacts raw() const override { return input_->facts(); }

 private:
  std::unique_ptr<RawInput> input_;
  z_stream state_{};
  bool inside_ = false;  // of a member
};

class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(std::unique_ptr<RawInput> input)
      : input_(std::move(input)), state_(ZSTD_createDStream()) {
    ZSTD_initDStream(state_);
  }
  ~ZstdStream() override { ZSTD_freeDStream(state_); }

  size_t read(char* to, size_t bytes) override {
    while (true) {
      const bool more = input_->fill(1);
      if (!more && !inside_) return 0;
      ZSTD_inBuffer in{input_->data(), input_->available(), 0};
      ZSTD_outBuffer out{to, bytes, 0};
      const size_t status = ZSTD_decompressStream(state_, &out, &in);
      input_->take(in.pos);
      if (ZSTD_isError(status)) {
        fail_data(cat(input_->path(), " is damaged: bad zstd data near byte ", input_->position(),
                      " (", ZSTD_getErrorName(status), ")"));
      }
      inside_ = status != 0;
      if (out.pos > 0) return out.pos;
      if (!more && inside_) {
        fail_data(
            cat(input_->path(), " is truncated: its zstd data ends at byte ", input_->position()));
      }
    }
  }
  RawFacts raw() const override { return input_->facts(); }

 private:
  std::unique_ptr<RawInput> input_;
  ZSTD_DStream* state_;
  bool inside_ = false;  // of a frame
};

}  // namespace

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path) {
  auto input = std::make_unique<RawInput>(path);
  if (input->starts_with("\x1f\x8b", 2)) return std::make_unique<GzipStream>(std::move(input));
  if (input->starts_with("\x28\xb5\x2f\xfd", 4)) {
    return std::make_unique<ZstdStream>(std::move(input));
  }
  return std::make_unique<PlainStream>(std::move(input));
}

}  // namespace shoestring
