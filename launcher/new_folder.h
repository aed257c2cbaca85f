#pragma once
// A folder that is complete or absent: made under a temporary name beside its place, then renamed.

#include <string>

namespace shoestring {

class NewFolder {
 public:
  // Usage error when `path` is there and not an empty folder, unless `replace`; it is replaced only
  // by commit(). What a dead command left under the temporary name is removed.
  NewFolder(const std::string& path, bool replace);
  ~NewFolder();  // removes what was not committed
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::string& temporary() const { return temporary_; }
  // The files in it have been synced by whoever wrote them.
  void commit();

 private:
  std::string path_, temporary_;
  bool replace_ = false, done_ = false;
};

}  // namespace shoestring
