#include "tests/support/small_disk.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

std::string size_option(int64_t bytes) { return cat("size=", bytes); }

}  // namespace

SmallDisk::SmallDisk(int64_t bytes) {
  path_ = (std::filesystem::temp_directory_path() / "small_disk_XXXXXX").string();
  if (::mkdtemp(path_.data()) == nullptr) fail("cannot make a temporary folder");
  real_ = ::mount("small_disk", path_.c_str(), "tmpfs", 0, size_option(bytes).c_str()) == 0;
  if (!real_) {
    std::printf("no disk can be mounted here (%s): a limit on file sizes stands for a full one\n",
                std::strerror(errno));
  }
}

SmallDisk::~SmallDisk() {
  if (real_) ::umount2(path_.c_str(), MNT_DETACH);
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

void SmallDisk::resize(int64_t bytes) const {
  if (!real_) return;
  const std::string options = size_option(bytes);
  if (::mount("small_disk", path_.c_str(), "tmpfs", MS_REMOUNT, options.c_str()) != 0) {
    fail(cat("cannot resize ", path_, ": ", std::strerror(errno)));
  }
}

void SmallDisk::fill(int64_t free_bytes) const {
  if (!real_) return;
  struct statvfs info {};
  if (::statvfs(path_.c_str(), &info) != 0) fail(cat("cannot ask about ", path_));
  const auto left = static_cast<int64_t>(info.f_bavail * info.f_frsize) - free_bytes;
  const int file = ::open((path_ + "/filler").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int error = left > 0 && file >= 0 ? ::posix_fallocate(file, 0, left) : 0;
  ::close(file);
  if (file < 0 || error != 0) fail(cat("cannot fill ", path_));
}

void SmallDisk::clear() const { std::filesystem::remove(path_ + "/filler"); }

}  // namespace shoestring
