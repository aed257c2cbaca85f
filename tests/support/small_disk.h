#pragma once
// A disk that can really be full: a small file system in memory. Where mounting is not allowed the
// test says so, and a limit on the size of files stands in for it.

#include <cstdint>
#include <string>

namespace shoestring {

class SmallDisk {
 public:
  explicit SmallDisk(int64_t bytes);
  ~SmallDisk();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // False where it could not be mounted: then programs are to be started with a limit on their
  // files, ChildProcess::Options::largest_file_bytes.
  bool real() const { return real_; }
  void resize(int64_t bytes) const;
  // Leaves only so much free, by a file that resize() or clear() makes harmless.
  void fill(int64_t free_bytes) const;
  void clear() const;

 private:
  std::string path_;
  bool real_ = false;
};

}  // namespace shoestring
