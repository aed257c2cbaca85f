#include "launcher/new_folder.h"

#include <algorithm>
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

// A hidden name beside `path` that nobody else gives.
std::string name_beside(const std::string& path, std::string_view end) {
  const fs::path place = path;
  return (place.parent_path() / cat(".", place.filename().string(), ".shoestring-", end)).string();
}

// Without links, so that two names of one place are equal.
fs::path real_path(const std::string& path) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(fs::absolute(path), error);
  return error ? fs::absolute(path).lexically_normal() : real;
}

// "is" or "holds" when the folder at `path` is `other` or one around it; else "".
std::string_view relation(const std::string& path, const std::string& other) {
  const fs::path outer = real_path(path), inner = real_path(other);
  const auto [at, rest] = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
  if (at != outer.end()) return "";
  return rest == inner.end() ? "is" : "holds";
}

}  // namespace

NewFolder::NewFolder(const std::string& path, ReplaceRule rule)
    : path_(plain_path(path)),
      temporary_(name_beside(path_, "new")),
      old_(name_beside(path_, "old")),
      rule_(std::move(rule)) {
  std::error_code error;
  // A command died between taking the old one away and putting the new one there.
  if (!fs::exists(path_, error) && fs::exists(old_, error)) rename_durably(old_, path_);
  check_place();
  remove_folder(temporary_);
  make_folder(temporary_);
}

NewFolder::~NewFolder() {
  if (!done_) remove_folder(temporary_);
}

void NewFolder::check_place() const {
  std::error_code error;
  if (!fs::exists(path_, error)) return;
  if (!fs::is_directory(path_, error)) {
    fail_usage(cat(path_, " is no folder and is not replaced by one; name a new folder"));
  }
  for (const std::string& needed : rule_.needed) {
    const std::string_view verb = relation(path_, needed);
    if (verb.empty()) continue;
    fail_usage(cat(path_, " ", verb, " the model that is read (", needed,
                   ") and is not replaced; name another folder"));
  }
  if (fs::is_empty(path_, error)) return;
  const std::string reason = rule_.why_not ? rule_.why_not(path_) : "";
  if (!reason.empty()) {
    fail_usage(cat(path_, " exists already and ", reason, ", so it is not replaced",
                   rule_.force ? ", not even with --force" : "",
                   "; name another folder, or remove this one first"));
  }
  if (!rule_.force) {
    fail_usage(cat(path_, " exists already; name another folder, or replace it with --force"));
  }
}

void NewFolder::commit() {
  sync_folder(temporary_);
  check_place();
  std::error_code error;
  const bool there = fs::exists(path_, error);
  if (there) {
    remove_folder(old_);
    rename_durably(path_, old_);
  }
  rename_durably(temporary_, path_);
  done_ = true;
  if (there) remove_folder(old_);
}

}  // namespace shoestring
