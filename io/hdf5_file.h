#pragma once
// The structure of HDF5 files: names, types, attributes and where each dataset's bytes lie. Bulk
// data never passes through the library: datasets are contiguous and allocated when created, and
// callers read and write their bytes at the given position of the file. The library is not
// thread-safe, so every call holds one lock of the process.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace shoestring {

// bf16 is a 2-byte float type (sign 1, exponent 8, mantissa 7 bits), which the library and what
// is built on it convert like any other float.
enum class Hdf5Type { u8, u16, u32, u64, text, i8, i16, i32, i64, f16, bf16, f32, f64, f8e5m2 };
uint64_t hdf5_item_bytes(Hdf5Type type);  // of one item; text: of one byte

struct Hdf5Extent {
  Hdf5Type type = Hdf5Type::u8;
  uint64_t items = 0;     // text: bytes
  uint64_t position = 0;  // of the first byte, from the start of the file
  // Of its items, when written; empty: one dim.
  std::vector<uint64_t> shape = {};
  // Attributes of the dataset, written and not read back.
  std::map<std::string, std::vector<int64_t>> numbers = {};
  std::map<std::string, std::string> texts = {};
  uint64_t bytes() const { return items * hdf5_item_bytes(type); }
};

// Writes the structure of a new file and closes it. `user_block` bytes at the start of the file are
// left to the caller (0, or a power of two from 4,096). Datasets with no items have no position.
// Slashes in the names of datasets make groups.
struct Hdf5Layout {
  uint64_t user_block = 0;
  std::map<std::string, Hdf5Extent> datasets;  // position is filled in by write_hdf5_layout
  std::map<std::string, std::string> texts;    // attributes of the root group
  std::map<std::string, int64_t> numbers;
};
void write_hdf5_layout(const std::string& path, Hdf5Layout& layout);

// Reads what write_hdf5_layout wrote. Data error with the file's name for anything else: a dataset
// that is missing, of another type, chunked, or that reaches past the end of the file.
Hdf5Layout read_hdf5_layout(const std::string& path, const std::vector<std::string>& datasets);

}  // namespace shoestring
