#pragma once
// Files that are complete or absent: written under a temporary name, synced, then renamed. Every
// failed call says what was being done, to which file, and what the user can do about it.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace shoestring {

// How the advice about a full disk ends: wrong where the program itself tries again.
inline constexpr std::string_view run_again = " and run the same command again";

// A writable file. Errors (full disk, quota, file size limit, input/output error) are data errors
// that name the file and the byte position; nothing is written past a failure.
class DurableFile {
 public:
  enum class Mode { create, keep };  // create: start empty; keep: keep what is there, or create
  DurableFile(const std::string& path, Mode mode);
  ~DurableFile();
  DurableFile(DurableFile&& other) noexcept;
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write_at(uint64_t position, const void* data, size_t bytes);
  void append(const void* data, size_t bytes) { write_at(size_, data, bytes); }
  void append(std::string_view text) { append(text.data(), text.size()); }
  // Makes the space sure before anything is written, so that a full disk shows early.
  void reserve(uint64_t bytes);
  void truncate(uint64_t bytes);
  std::string read_all() const;
  // False when another process works with the file; held until the file is closed.
  bool lock();
  void sync();  // returns when the data is on the device
  void close();
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// The whole text under its name, or nothing: by way of a temporary name, so that a full disk leaves
// no half file and what was there stays.
void write_file_durably(const std::string& path, std::string_view text);

// Renames and syncs the folder, so that the new name survives a power cut.
void rename_durably(const std::string& from, const std::string& to);

// The whole file as bytes; a data error that names it when it is missing or larger than `limit`.
std::string read_small_file(const std::string& path, uint64_t limit);

// A whole file mapped read-only. The pages are shared with every process that maps it.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  // Fails where the file has become shorter since: touching what it lost would end the process.
  void require_whole() const;
  // Asks the system to read these bytes ahead; costs nothing when they are there already.
  void prefetch(uint64_t position, uint64_t bytes) const;
  // Takes whole pages of these bytes out of the process's memory; they are read again when touched.
  void release(uint64_t position, uint64_t bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

// Removes a file when it goes out of scope, unless kept: no half-written file stays behind.
class RemoveOnExit {
 public:
  explicit RemoveOnExit(std::string path) : path_(std::move(path)) {}
  ~RemoveOnExit();
  RemoveOnExit(const RemoveOnExit&) = delete;
  RemoveOnExit& operator=(const RemoveOnExit&) = delete;
  void keep() { path_.clear(); }

 private:
  std::string path_;
};

}  // namespace shoestring
