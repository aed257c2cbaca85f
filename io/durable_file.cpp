#include "io/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

std::string reason(int error) { return std::string(std::strerror(error)); }

[[noreturn]] void fail_write(const std::string& path, uint64_t position, int error) {
  const std::string start = cat("cannot write ", path, " at byte ", position, ": ", reason(error));
  if (error == ENOSPC || error == EDQUOT) {
    fail_data(cat(start, "; free some space on that disk", run_again));
  }
  if (error == EFBIG) {
    fail_data(cat(start, "; raise the file size limit (ulimit -f)", run_again));
  }
  fail_data(start);
}

int open_or_fail(const std::string& path, int flags, const char* doing) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (descriptor < 0) fail_data(cat("cannot ", doing, " ", path, ": ", reason(errno)));
  return descriptor;
}

uint64_t size_of(int descriptor, const std::string& path) {
  struct stat info {};
  if (::fstat(descriptor, &info) != 0) fail_data(cat("cannot read ", path, ": ", reason(errno)));
  if (!S_ISREG(info.st_mode)) fail_data(cat(path, " is not a regular file"));
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace

DurableFile::DurableFile(const std::string& path, Mode mode) : path_(path) {
  const int flags = O_RDWR | O_CREAT | (mode == Mode::create ? O_TRUNC : 0);
  descriptor_ = open_or_fail(path, flags, "create");
  size_ = size_of(descriptor_, path);
}

DurableFile::~DurableFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

DurableFile::DurableFile(DurableFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

void DurableFile::write_at(uint64_t position, const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::pwrite(descriptor_, from, bytes, static_cast<off_t>(position));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_write(path_, position, errno);
    }
    from += written;
    position += static_cast<uint64_t>(written);
    bytes -= static_cast<size_t>(written);
    size_ = std::max(size_, position);
  }
}

void DurableFile::reserve(uint64_t bytes) {
  int error = EINTR;
  while (error == EINTR) error = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
  // A file system that cannot reserve is no reason to stop: the writes themselves are checked.
  if (error != 0 && error != EOPNOTSUPP && error != EINVAL) fail_write(path_, bytes, error);
  size_ = std::max(size_, bytes);
}

void DurableFile::truncate(uint64_t bytes) {
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) fail_write(path_, bytes, errno);
  size_ = bytes;
}

std::string DurableFile::read_all() const {
  std::string text(size_, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got =
        ::pread(descriptor_, text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail_data(cat("cannot read ", path_, " at byte ", done));
    done += static_cast<size_t>(got);
  }
  return text;
}

bool DurableFile::lock() { return ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0; }

void DurableFile::sync() {
  if (::fdatasync(descriptor_) != 0) fail_write(path_, size_, errno);
}

void DurableFile::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  if (descriptor >= 0 && ::close(descriptor) != 0) fail_write(path_, size_, errno);
}

void write_file_durably(const std::string& path, std::string_view text) {
  const std::string temporary = path + ".partial";
  RemoveOnExit remove(temporary);
  DurableFile file(temporary, DurableFile::Mode::create);
  file.append(text);
  file.sync();
  file.close();
  rename_durably(temporary, path);
  remove.keep();
}

void rename_durably(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    fail_data(cat("cannot rename ", from, " to ", to, ": ", reason(errno)));
  }
  const std::filesystem::path parent = std::filesystem::path(to).parent_path();
  const std::string folder(parent.empty() ? "." : parent.string());
  const int descriptor = open_or_fail(folder, O_RDONLY | O_DIRECTORY, "open the folder");
  ::fsync(descriptor);  // some file systems refuse to sync folders; the rename itself has happened
  ::close(descriptor);
}

std::string read_small_file(const std::string& path, uint64_t limit) {
  const int descriptor = open_or_fail(path, O_RDONLY, "read");
  std::string text;
  char buffer[65536];
  ssize_t got = 0;
  while ((got = ::read(descriptor, buffer, sizeof buffer)) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) break;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > limit) break;
  }
  const int error = errno;
  ::close(descriptor);
  if (got < 0) fail_data(cat("cannot read ", path, ": ", reason(error)));
  if (text.size() > limit) fail_data(cat(path, " is larger than ", limit, " bytes"));
  return text;
}

MappedFile::MappedFile(const std::string& path)
    : path_(path), descriptor_(open_or_fail(path, O_RDONLY, "open")) {
  struct stat info {};
  const bool regular = ::fstat(descriptor_, &info) == 0 && S_ISREG(info.st_mode);
  size_ = static_cast<uint64_t>(info.st_size);
  void* at = MAP_FAILED;
  if (regular && size_ > 0) at = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor_, 0);
  const int error = errno;
  if (regular && (size_ == 0 || at != MAP_FAILED)) {
    if (size_ > 0) data_ = static_cast<uint8_t*>(at);
    return;
  }
  ::close(descriptor_);
  if (!regular) fail_data(cat(path, " is not a regular file"));
  fail_data(cat("cannot map ", path, " into memory: ", reason(error)));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
  ::close(descriptor_);
}

void MappedFile::require_whole() const {
  struct stat info {};
  if (::fstat(descriptor_, &info) == 0 && static_cast<uint64_t>(info.st_size) >= size_) return;
  fail_data(cat(path_, " had ", size_, " bytes when it was opened and has ", info.st_size,
                " now: something cut it off while it was read; make it again"));
}

void MappedFile::prefetch(uint64_t position, uint64_t bytes) const {
  if (position >= size_ || bytes == 0) return;
  const uint64_t page = 4096;
  const uint64_t begin = position / page * page;
  const uint64_t end = std::min(size_, position + bytes);
  ::madvise(data_ + begin, end - begin, MADV_WILLNEED);
}

void MappedFile::release(uint64_t position, uint64_t bytes) const {
  const uint64_t page = 4096;
  const uint64_t begin = std::min((position + page - 1) / page * page, size_);
  const uint64_t end = position + bytes >= size_ ? size_ : (position + bytes) / page * page;
  if (begin < end) ::madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

RemoveOnExit::~RemoveOnExit() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

}  // namespace shoestring
