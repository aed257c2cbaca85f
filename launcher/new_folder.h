#pragma once
// A folder that is complete or absent: made under a temporary name beside its place, then renamed.

#include <functional>
#include <string>
#include <vector>

namespace shoestring {

// What may become of the folder that is at a new one's place. An empty one is always replaced.
struct ReplaceRule {
  bool force = false;  // replace what `why_not` has nothing against
  // Files and folders that are still needed: no folder is replaced that is or holds one of them.
  std::vector<std::string> needed = {};
  // Why the folder is not an earlier output of the same command, as "holds notes.txt"; empty: it
  // is. Only such folders are replaced.
  std::function<std::string(const std::string& folder)> why_not = {};
};

class NewFolder {
 public:
  // Usage error when something is at `path` that the rule does not let go; it is replaced only by
  // commit(). What a dead command left under the temporary names is removed or put back.
  NewFolder(const std::string& path, ReplaceRule rule);
  ~NewFolder();  // removes what was not committed
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::string& temporary() const { return temporary_; }
  // The files in it have been synced by whoever wrote them. Usage error, and nothing is replaced,
  // when something came to the place meanwhile that the rule does not let go.
  void commit();

 private:
  void check_place() const;

  std::string path_, temporary_, old_;
  ReplaceRule rule_;
  bool done_ = false;
};

}  // namespace shoestring
