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
#include "core/counted.h"
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

// What decoders share: the input, and how far they came.
class DecodedStream : public ByteStream {
 public:
  DecodedStream(std::unique_ptr<RawInput> input, const char* kind)
      : input_(std::move(input)), kind_(kind) {}
  size_t read(char* to, size_t bytes) override {
    const size_t got = decode(to, bytes);
    made_ += got;
    return got;
  }
  RawFacts raw() const override { return input_->facts(); }

 protected:
  virtual size_t decode(char* to, size_t bytes) = 0;
  // The damage lies in the compressed bytes from `first` to before `end`.
  [[noreturn]] void fail_damaged(uint64_t first, uint64_t end, const char* why) const {
    fail_data(cat(input_->path(), " is damaged: bad ", kind_, " data in the bytes ", first, " to ",
                  end, " of the file", why == nullptr ? "" : cat(" (", why, ")"), made_text()));
  }
  [[noreturn]] void fail_truncated() const {
    fail_data(cat(input_->path(), " is truncated: its ", kind_, " data ends at byte ",
                  input_->position(), " of the file", made_text()));
  }
  std::unique_ptr<RawInput> input_;

 private:
  std::string made_text() const {
    return cat("; the first ", counted(static_cast<int64_t>(made_), "byte"),
               " of what it holds were read well");
  }
  const char* kind_;
  uint64_t made_ = 0;
};

class GzipStream : public DecodedStream {
 public:
  explicit GzipStream(std::unique_ptr<RawInput> input) : DecodedStream(std::move(input), "gzip") {
    if (inflateInit2(&state_, 15 + 16) != Z_OK) fail("zlib does not start");
  }
  ~GzipStream() override { inflateEnd(&state_); }

 private:
  size_t decode(char* to, size_t bytes) override {
    while (true) {
      if (!inside_ && !input_->fill(1)) return 0;
      inside_ = true;
      if (!input_->fill(1)) fail_truncated();
      const size_t given = std::min<size_t>(input_->available(), kBuffer);
      state_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input_->data()));
      state_.avail_in = static_cast<uInt>(given);
      state_.next_out = reinterpret_cast<Bytef*>(to);
      state_.avail_out = static_cast<uInt>(std::min<size_t>(bytes, 1 << 30));
      const size_t room = state_.avail_out;
      const uint64_t first = input_->position();
      const int status = inflate(&state_, Z_NO_FLUSH);
      input_->take(given - state_.avail_in);
      if (status != Z_OK && status != Z_STREAM_END) {
        fail_damaged(first, input_->position(), state_.msg);
      }
      if (status == Z_STREAM_END) {  // another member may follow
        inflateReset(&state_);
        inside_ = false;
      }
      const size_t got = room - state_.avail_out;
      if (got > 0) return got;
    }
  }

  z_stream state_{};
  bool inside_ = false;  // of a member
};

class ZstdStream : public DecodedStream {
 public:
  explicit ZstdStream(std::unique_ptr<RawInput> input)
      : DecodedStream(std::move(input), "zstd"),
        state_(ZSTD_createDStream()),
        next_(ZSTD_initDStream(state_)) {}
  ~ZstdStream() override { ZSTD_freeDStream(state_); }

 private:
  // Gives the decoder a block at a time, so that an error tells in which one it is.
  size_t decode(char* to, size_t bytes) override {
    while (true) {
      const bool more = input_->fill(1);
      if (!more && !inside_) return 0;
      const bool drain = full_;  // what is decoded leaves before an error could take it away
      const size_t given = drain ? 0 : std::min(input_->available(), std::max<size_t>(next_, 1));
      ZSTD_inBuffer in{input_->data(), given, 0};
      ZSTD_outBuffer out{to, bytes, 0};
      const size_t status = ZSTD_decompressStream(state_, &out, &in);
      if (ZSTD_isError(status)) {
        const uint64_t first = input_->position();
        fail_damaged(first, first + given, ZSTD_getErrorName(status));
      }
      input_->take(in.pos);
      inside_ = status != 0;
      next_ = status;
      full_ = out.pos == bytes;
      if (out.pos > 0) return out.pos;
      if (!more && inside_ && !drain) fail_truncated();
    }
  }

  ZSTD_DStream* state_;
  size_t next_;          // bytes that the decoder asks for
  bool full_ = false;    // the last output: the decoder may hold more
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
