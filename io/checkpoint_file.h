#pragma once
// One rank's HDF5 file while it is written. A piece that is a whole tensor is a dataset of the
// tensor's shape under the tensor's name, a whole box one of its rows and columns; a part of either
// is a flat dataset. From the second piece of the same tensor on the name is "name@first", the
// number of its first element in the tensor. Each has the attributes global_shape, begin, end and
// dtype, and that of a box rows (pairs: first, count) and columns (first, count). bf16 is a 2-byte
// float type of HDF5, which h5py reads as numpy's float32; f8e4m3, which has no infinity as HDF5
// expects of a float, is stored as u8.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "io/checkpoint_manifest.h"
#include "io/durable_file.h"
#include "io/hdf5_file.h"

namespace shoestring {

// Usage error for an unnamed tensor, a part that its shape does not have or missing data.
void check_piece(const TensorPiece& piece);

class CheckpointFile {
 public:
  // Makes the space sure and lays the file out; `content` without its data. `folder` exists.
  CheckpointFile(const std::string& folder, const CheckpointOptions& options,
                 const CheckpointContent& content);

  // Writes piece i of the content and digests it in the same pass. No lock is held.
  void write(size_t i, const std::byte* data);
  // The same for a piece whose values are asked for block by block.
  void write(size_t i, const std::function<void(int64_t, int64_t, std::byte*)>& read);
  // Digests the rest, syncs and closes. Every piece has been written.
  StoredFile finish();

 private:
  std::string path_;
  StoredFile stored_;              // pieces in the order of the content until finish()
  std::vector<DurableFile> file_;  // one, or none for a rank with nothing to save
};

// The digest of the bytes of a file that are in none of its pieces.
std::string frame_digest(const StoredFile& file, const uint8_t* bytes);

}  // namespace shoestring
