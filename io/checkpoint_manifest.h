#pragma once
// What a checkpoint's manifest.json says: which bytes of which file belong to which tensor, and the
// digest of everything. The manifest ends with a digest of itself, so that it can be trusted before
// it is understood.
//
// Version 1 knows pieces that are elements [begin, end) of a tensor. Since version 2 a piece may
// have "rows", runs [first, count] in ascending order, and "columns", [first, count]: begin and end
// then count the elements of that box. Where no piece has a box, version 1 is written.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/box_index.h"
#include "io/checkpoint.h"

namespace shoestring {

// Where a piece lies. The digest is of its bytes as they stand in the file.
struct StoredPiece {
  std::string name;
  Shape shape;
  int64_t begin = 0, end = 0;
  Dtype dtype = Dtype::f32;
  std::string dataset;  // its name in the HDF5 file
  uint64_t offset = 0;  // of the first byte in the file
  std::string digest;
  std::optional<TensorBox> box = {};

  BoxRange part() const { return {.box = box, .begin = begin, .end = end}; }
  uint64_t bytes() const { return static_cast<uint64_t>(end - begin) * size_of(dtype); }
};

// One rank's file. Every byte is covered by one digest: those of the pieces, and `frame` for the
// bytes between them (the structure of the HDF5 file).
struct StoredFile {
  int rank = 0;
  std::string name;  // "rank_00000.h5"; empty: the rank had nothing to save
  uint64_t bytes = 0;
  std::string frame;
  std::vector<StoredPiece> pieces;  // in the order of their offsets
};

struct Manifest {
  int64_t step = 0;
  std::string config, state;
  std::vector<StoredFile> files;  // one a rank
};

std::string name_of_rank_file(int rank);  // "rank_00003.h5"

// One line for a digest, to be checked by parse_*; the text is JSON.
std::string manifest_text(const Manifest& manifest);
// What a rank tells rank 0: its file, or why there is none.
std::string rank_text(const StoredFile& file);
std::string rank_error_text(const std::string& message);

// Data errors that name `path`: a digest that differs, another version, sizes that contradict one
// another, a part that the tensor does not have.
Manifest parse_manifest(const std::string& text, const std::string& path);
// Throws the rank's own message when it sent one.
StoredFile parse_rank(const std::string& text, const std::string& path);

// The pieces of every tensor. Data errors that name `path`, tensor and ranks: pieces that overlap
// (two ranks wrote the same), leave a gap or disagree in shape or type.
struct PieceAt {
  const StoredFile* file = nullptr;
  const StoredPiece* piece = nullptr;
};
struct TensorPieces {
  std::vector<PieceAt> pieces;
  BoxIndex index;  // of `pieces`
};
std::map<std::string, TensorPieces> pieces_by_tensor(const Manifest& manifest,
                                                     const std::string& path);

}  // namespace shoestring
