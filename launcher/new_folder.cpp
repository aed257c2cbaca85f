#include "launcher/new_folder.h"

#include <filesystem>

#include "core/check.h"
#include "core/text.h"
#include "io/checkpoint_folder.h"
#include "io/durable_file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

// "a/b/" and "a/b" are one place; "" and "/" are none.
std::string plain_path(const std::string& path) {
  fs::path plain = fs::path(path).lexically_normal();
  if (!plain.has_filename()) plain = plain.parent_path();
  if (plain.empty() || !plain.has_filename() || plain.filename() == "." ||
      plain.filename() == "..") {
    fail_usage(cat("\"", path, "\" cannot be made: name a new folder"));
  }
  return plain.string();
}

}  // namespace

NewFolder::NewFolder(const std::string& path, bool replace)
    : path_(plain_path(path)), temporary_(path_ + ".part"), replace_(replace) {
  std::error_code error;
  const bool there = fs::exists(path_, error);
  const bool empty = fs::is_directory(path_, error) && fs::is_empty(path_, error);
  if (there && !empty && !replace) {
    fail_usage(cat(path_, " exists already; name another folder, or replace it with --force"));
  }
  if (there && !fs::is_directory(path_, error)) {
    fail_usage(cat(path_, " is no folder and is not replaced by one"));
  }
  remove_folder(temporary_);
  make_folder(temporary_);
}

NewFolder::~NewFolder() {
  if (!done_) remove_folder(temporary_);
}

void NewFolder::commit() {
  sync_folder(temporary_);
  const std::string old = path_ + ".old";
  std::error_code error;
  const bool there = fs::exists(path_, error);
  if (there) {
    remove_folder(old);
    rename_durably(path_, old);
  }
  rename_durably(temporary_, path_);
  done_ = true;
  if (there) remove_folder(old);
}

}  // namespace shoestring
