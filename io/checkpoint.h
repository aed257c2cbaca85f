#pragma once
// Checkpoints: what a run needs to go on, written beside the training and verified before it is
// used.
//
//   <directory>/step_00001000/manifest.json    step, ranks, digests of every file and tensor piece;
//                                              written last
//                            /rank_00000.h5    serial HDF5, latest format: a dataset a tensor piece
//
// A folder without a good manifest is not a checkpoint. Every byte of every file is covered by an
// XXH3 digest of 128 bits. io/checkpoint_file.h describes the datasets. Everything is written under
// a temporary name, synced and renamed, so a crash leaves the last good one.
//
// A rank writes parts of tensors (io/tensor_box.h), under the names and shapes that the tensors
// have over all ranks; all parts together are every element once. Who reads asks for parts of his
// own, cut in any other way.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/tensor.h"
#include "io/tensor_box.h"

namespace shoestring {

// Row-major elements [begin, end) of a tensor of this shape over all ranks, or of a box of it.
struct TensorPiece {
  std::string name;
  Shape shape;
  int64_t begin = 0, end = 0;
  Dtype dtype = Dtype::f32;
  const std::byte* data = nullptr;
  // In place of `data`, for save_checkpoint(): gives elements [first, last), numbered as `begin`
  // is, so that a model larger than the memory can be saved.
  std::function<void(int64_t first, int64_t last, std::byte* out)> read = {};
  std::optional<TensorBox> box = {};  // empty: the tensor

  BoxRange part() const { return {.box = box, .begin = begin, .end = end}; }
};

struct CheckpointContent {
  int64_t step = 0;
  std::string config;  // the resolved TOML
  std::string state;   // JSON text of small facts
  std::vector<TensorPiece> pieces;
  bool last = false;  // nothing is saved after it: of a failure finish() tells, and nothing warns
  // Numbers computed with this very state were good. Otherwise the checkpoint before it stays
  // beside it until the next save, which means that they were.
  bool proven = false;
  // Tensors that all ranks together must bring: a save without one of them fails. Others may be
  // there too.
  std::vector<std::pair<std::string, Shape>> expected = {};
};

struct CheckpointOptions {
  std::string directory;
  int rank = 0, ranks = 1;
  int64_t keep = 2;        // how many of the last ones stay
  int64_t keep_every = 0;  // multiples of this many steps stay for good; 0: none
  bool background = true;
  int64_t memory_limit_bytes = 0;  // of the copy; above it, saving waits for the disk; 0: no limit
  double deadline_seconds = 600;   // for the other ranks to write their files
  Ledger* ledger = nullptr;        // counts the copy as MemoryKind::other; outlives the writer
};

// How much of the content save() copies under these options.
int64_t copied_bytes(const CheckpointContent& content, const CheckpointOptions& options);

struct CheckpointStats {
  double stall_seconds = 0;  // that save() and finish() kept the caller
  double write_seconds = 0;  // that writing took, mostly in the background
  int64_t bytes = 0;         // written by this rank
  int64_t saves = 0;
};

class CheckpointWriter {
 public:
  // Rank 0's removes what a dead run left half-written, so it must have returned before any rank
  // saves.
  explicit CheckpointWriter(CheckpointOptions options);
  ~CheckpointWriter();  // waits for what is in flight
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Before the first save: the run goes on from the checkpoint of this step, so those of later
  // steps were passed over; they do not count among the `keep` ones.
  void resumed_from(int64_t step);
  // Copies the state and returns; it is on the disk some time later. Every rank calls with the same
  // step. A failure in the background (a full disk) is warned of, and training goes on. Of the
  // last save nothing is copied: there is nothing else to do meanwhile.
  void save(const CheckpointContent& content);
  // Waits for the last save: is it on the disk (or was there none)?
  bool settled();
  // Waits until the last save is on the disk; throws when that one failed.
  void finish();
  CheckpointStats stats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Ranks that open a checkpoint together verify a share of its bytes each: together, all of them.
struct VerifiedShare {
  int rank = 0, ranks = 1;
};

// Read-only, verified.
class Checkpoint {
 public:
  // The newest one below `directory` that verifies, for a run that goes on; `warn` is told of each
  // broken one passed over, with file and tensor. Nullopt when there is none at all; a data error
  // when all are broken. Those of steps after `newest` are left out. The manifest and the sizes of
  // files are looked at whatever the share.
  static std::optional<Checkpoint> latest(const std::string& directory,
                                          const std::function<void(const std::string&)>& warn,
                                          int64_t newest = std::numeric_limits<int64_t>::max(),
                                          VerifiedShare share = {});
  // A step's folder, a checkpoints folder or a run's folder.
  static Checkpoint open(const std::string& path);

  const std::string& path() const;
  int64_t step() const;
  const std::string& config() const;
  const std::string& state() const;
  std::vector<std::string> names() const;
  bool has(const std::string& name) const;
  const Shape& shape(const std::string& name) const;
  Dtype dtype(const std::string& name) const;
  // Elements [begin, end) of a tensor as f32, bf16 or its own type; pieces of several ranks are
  // joined and only the bytes asked for are read.
  void read(const std::string& name, int64_t begin, int64_t end, Dtype to, std::byte* out) const;
  // The same of any part of it; `out` has the part's elements one after another.
  void read_box(const std::string& name, const BoxRange& part, Dtype to, std::byte* out) const;

  // Of tensors, so far, by this object and its copies: bytes that read*() took from the files, and
  // those that were verified.
  int64_t bytes_read() const;
  int64_t bytes_verified() const;

 private:
  struct State;
  struct Search {
    std::string directory;
    std::function<void(const std::string&)> warn;
    int64_t newest;
    std::string remedy;  // where all are broken
    VerifiedShare share = {};
  };
  static std::optional<Checkpoint> find(const Search& search);
  explicit Checkpoint(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

// One line for each tensor below `prefix` that is missing, unexpected or of another shape; empty
// when the checkpoint holds exactly the wanted ones.
std::string compare_tensors(const Checkpoint& checkpoint,
                            const std::vector<std::pair<std::string, Shape>>& wanted,
                            const std::string& prefix);

}  // namespace shoestring
