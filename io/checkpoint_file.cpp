#include "io/checkpoint_file.h"

#include <algorithm>

#include "core/check.h"
#include "core/text.h"
#include "io/digest.h"

namespace shoestring {
namespace {

constexpr uint64_t block_bytes = 4 << 20;  // digested while it is in the cache, then written

Hdf5Type stored_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return Hdf5Type::f32;
    case Dtype::f64:
      return Hdf5Type::f64;
    case Dtype::bf16:
      return Hdf5Type::bf16;
    case Dtype::f16:
      return Hdf5Type::f16;
    case Dtype::f8e5m2:
      return Hdf5Type::f8e5m2;
    case Dtype::i8:
      return Hdf5Type::i8;
    case Dtype::i16:
      return Hdf5Type::i16;
    case Dtype::u16:
      return Hdf5Type::u16;
    case Dtype::i32:
      return Hdf5Type::i32;
    case Dtype::u32:
      return Hdf5Type::u32;
    case Dtype::i64:
      return Hdf5Type::i64;
    case Dtype::u64:
      return Hdf5Type::u64;
    case Dtype::f8e4m3:
    case Dtype::u8:
      break;
  }
  return Hdf5Type::u8;
}

void add_box(const TensorPiece& piece, Hdf5Extent& extent) {
  const TensorBox& box = *piece.box;
  std::vector<int64_t>& rows = extent.numbers["rows"];
  for (const RowRun& run : box.rows) rows.insert(rows.end(), {run.global, run.count});
  extent.numbers["columns"] = {box.first_column, box.columns};
  if (piece.begin > 0 || piece.end < box.elements() || piece.shape.rank() < 2) return;
  extent.shape = {static_cast<uint64_t>(box.elements() / box.columns),
                  static_cast<uint64_t>(box.columns)};
}

Hdf5Extent extent_of(const TensorPiece& piece) {
  const std::vector<int64_t> dims(piece.shape.dims().begin(), piece.shape.dims().end());
  Hdf5Extent extent{.type = stored_type(piece.dtype),
                    .items = static_cast<uint64_t>(piece.end - piece.begin),
                    .numbers = {{"begin", {piece.begin}}, {"end", {piece.end}}},
                    .texts = {{"dtype", std::string(name_of(piece.dtype))}}};
  if (dims.empty()) return extent;  // a scalar: one item
  extent.numbers["global_shape"] = dims;
  if (piece.box && piece.end > piece.begin) {
    add_box(piece, extent);
  } else if (piece.begin == 0 && piece.end == piece.shape.elements()) {
    extent.shape.assign(dims.begin(), dims.end());
  }
  return extent;
}

// In the tensor.
int64_t first_element(const TensorPiece& piece) {
  const std::vector<BoxRectangle> areas = rectangles_of(piece.shape, piece.part());
  return areas.empty() ? piece.begin : areas[0].row * columns_of(piece.shape) + areas[0].column;
}

// Room for the data, its alignment and the structure; HDF5 then starts the file afresh.
void make_space_sure(const std::string& path, const std::vector<StoredPiece>& pieces) {
  constexpr uint64_t structure = 65536, for_each = 8192;
  uint64_t bytes = structure;
  for (const StoredPiece& p : pieces) {
    bytes += p.bytes() + for_each + (p.box ? 2 * p.box->rows.size() * sizeof(RowRun) : 0);
  }
  DurableFile(path, DurableFile::Mode::create).reserve(bytes);
}

}  // namespace

void check_piece(const TensorPiece& piece) {
  if (piece.name.empty() || piece.name.front() == '/' || piece.name.back() == '/') {
    fail(cat("a checkpoint cannot hold a tensor called \"", piece.name, "\""));
  }
  if (const std::string complaint = complaint_of(piece.shape, piece.part()); !complaint.empty()) {
    fail(cat("tensor ", piece.name, " ", piece.shape.text(), ": ", complaint));
  }
  if (piece.data == nullptr && !piece.read && piece.end > piece.begin) {
    fail(cat("tensor ", piece.name, " has no data to save"));
  }
}

CheckpointFile::CheckpointFile(const std::string& folder, const CheckpointOptions& options,
                               const CheckpointContent& content) {
  stored_.rank = options.rank;
  if (content.pieces.empty()) return;
  stored_.name = name_of_rank_file(options.rank);
  path_ = folder + "/" + stored_.name;
  Hdf5Layout layout;
  layout.texts["format"] = "shoestring checkpoint";
  layout.numbers = {{"step", content.step}, {"rank", options.rank}, {"ranks", options.ranks}};
  for (const TensorPiece& piece : content.pieces) {
    StoredPiece stored{.name = piece.name,
                       .shape = piece.shape,
                       .begin = piece.begin,
                       .end = piece.end,
                       .dtype = piece.dtype,
                       .dataset = piece.name,
                       .digest = {},
                       .box = piece.box};
    if (layout.datasets.contains(stored.dataset)) append(stored.dataset, "@", first_element(piece));
    if (!layout.datasets.emplace(stored.dataset, extent_of(piece)).second) {
      fail(cat("the piece of tensor ", piece.name, " with ", text_of(piece.part()),
               " is saved twice"));
    }
    stored_.pieces.push_back(std::move(stored));
  }
  make_space_sure(path_, stored_.pieces);
  write_hdf5_layout(path_, layout);
  for (StoredPiece& p : stored_.pieces) p.offset = layout.datasets.at(p.dataset).position;
  file_.emplace_back(path_, DurableFile::Mode::keep);
  file_[0].reserve(file_[0].size());
}

void CheckpointFile::write(size_t i, const std::byte* data) {
  StoredPiece& piece = stored_.pieces.at(i);
  Digest digest;
  for (uint64_t at = 0; at < piece.bytes(); at += block_bytes) {
    const uint64_t bytes = std::min(block_bytes, piece.bytes() - at);
    digest.add(data + at, bytes);
    file_[0].write_at(piece.offset + at, data + at, bytes);
  }
  piece.digest = digest.text();
}

void CheckpointFile::write(size_t i,
                           const std::function<void(int64_t, int64_t, std::byte*)>& read) {
  StoredPiece& piece = stored_.pieces.at(i);
  const auto width = static_cast<int64_t>(size_of(piece.dtype));
  const int64_t step = static_cast<int64_t>(block_bytes) / width;
  std::vector<std::byte> values;
  Digest digest;
  for (int64_t first = piece.begin; first < piece.end; first += step) {
    const int64_t last = std::min(first + step, piece.end);
    values.resize(static_cast<size_t>((last - first) * width));
    read(first, last, values.data());
    digest.add(values.data(), values.size());
    file_[0].write_at(piece.offset + static_cast<uint64_t>((first - piece.begin) * width),
                      values.data(), values.size());
  }
  piece.digest = digest.text();
}

StoredFile CheckpointFile::finish() {
  if (file_.empty()) return std::move(stored_);
  std::sort(stored_.pieces.begin(), stored_.pieces.end(),
            [](const StoredPiece& a, const StoredPiece& b) {
              return std::pair(a.offset, a.end) < std::pair(b.offset, b.end);
            });
  file_[0].sync();
  stored_.bytes = file_[0].size();
  file_[0].close();
  file_.clear();
  stored_.frame = frame_digest(stored_, MappedFile(path_).data());
  return std::move(stored_);
}

std::string frame_digest(const StoredFile& file, const uint8_t* bytes) {
  Digest digest;
  uint64_t at = 0;
  for (const StoredPiece& p : file.pieces) {
    if (p.bytes() == 0) continue;
    digest.add(bytes + at, p.offset - at);
    at = p.offset + p.bytes();
  }
  digest.add(bytes + at, file.bytes - at);
  return digest.text();
}

}  // namespace shoestring
