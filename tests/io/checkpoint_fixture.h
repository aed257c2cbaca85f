#pragma once
// What the tests of checkpoints share: tensors with known values, cut over any number of ranks.

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/check.h"
#include "core/text.h"
#include "io/checkpoint.h"

namespace shoestring {

// A whole tensor; values follow from name, step and index, every bit of them.
struct SavedTensor {
  std::string name;
  Shape shape;
  Dtype dtype = Dtype::f32;
  std::vector<std::byte> bytes;
};

inline SavedTensor make_tensor(const std::string& name, Shape shape, Dtype dtype, int64_t step) {
  SavedTensor tensor{.name = name, .shape = shape, .dtype = dtype, .bytes = {}};
  uint64_t x = std::hash<std::string>{}(name) + static_cast<uint64_t>(step) * 977;
  tensor.bytes.resize(static_cast<size_t>(shape.elements()) * size_of(dtype));
  for (size_t i = 0; i < tensor.bytes.size(); ++i) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    tensor.bytes[i] = static_cast<std::byte>(x >> 56);
  }
  return tensor;
}

inline std::vector<SavedTensor> make_state(int64_t step) {
  return {make_tensor("model/layers.0.wq", {48, 32}, Dtype::f32, step),
          make_tensor("model/layers.0.gain", {33}, Dtype::f32, step),
          make_tensor("model/embedding", {301, 17}, Dtype::bf16, step),
          make_tensor("optim/m/layers.0.wq", {48, 32}, Dtype::bf16, step),
          make_tensor("optim/v/layers.0.wq", {48, 32}, Dtype::f32, step),
          make_tensor("scalar", {}, Dtype::f64, step),
          make_tensor("counts", {2, 3, 2}, Dtype::i64, step),
          make_tensor("codes", {700}, Dtype::u8, step)};
}

// The elements of a part, one after another.
inline std::vector<std::byte> values_of(const SavedTensor& tensor, const BoxRange& part) {
  const size_t size = size_of(tensor.dtype);
  std::vector<std::byte> values(static_cast<size_t>(part.elements()) * size);
  for (const BoxRectangle& r : rectangles_of(tensor.shape, part)) {
    for (int64_t i = 0; i < r.rows; ++i) {
      const int64_t from = (r.row + i) * columns_of(tensor.shape) + r.column;
      std::memcpy(values.data() + static_cast<size_t>(r.at + i * r.stride) * size,
                  tensor.bytes.data() + static_cast<size_t>(from) * size,
                  static_cast<size_t>(r.columns) * size);
    }
  }
  return values;
}

// The share of one rank: flat ranges of equal length over all elements, as ZeRO cuts them.
// `buckets` > 1 cuts each of so many stretches over the ranks, so that a rank has several parts of
// one tensor.
inline std::vector<TensorPiece> shard(const std::vector<SavedTensor>& tensors, int rank, int ranks,
                                      int buckets = 1) {
  int64_t total = 0;
  for (const SavedTensor& t : tensors) total += t.shape.elements();
  std::vector<TensorPiece> pieces;
  const int64_t parts = int64_t{ranks} * buckets;
  for (int64_t part = rank; part < parts; part += ranks) {
    const int64_t first = total * part / parts, last = total * (part + 1) / parts;
    int64_t offset = 0;
    for (const SavedTensor& t : tensors) {
      const int64_t n = t.shape.elements();
      const int64_t begin = std::max(first - offset, int64_t{0}), end = std::min(last - offset, n);
      offset += n;
      if (begin >= end) continue;
      pieces.push_back({.name = t.name,
                        .shape = t.shape,
                        .begin = begin,
                        .end = end,
                        .dtype = t.dtype,
                        .data = t.bytes.data() + static_cast<size_t>(begin) * size_of(t.dtype)});
    }
  }
  return pieces;
}

inline CheckpointContent content_at(int64_t step, const std::vector<SavedTensor>& tensors) {
  return {.step = step,
          .config = cat("[run]\nstep = ", step, "\n"),
          .state = cat("{\"updates\": ", step, "}"),
          .pieces = shard(tensors, 0, 1)};
}

// The writers of all ranks, made before any of them saves.
inline std::vector<std::unique_ptr<CheckpointWriter>> make_writers(
    const CheckpointOptions& options) {
  std::vector<std::unique_ptr<CheckpointWriter>> writers;
  for (int rank = 0; rank < options.ranks; ++rank) {
    CheckpointOptions own = options;
    own.rank = rank;
    writers.push_back(std::make_unique<CheckpointWriter>(own));
  }
  return writers;
}

// Runs every rank in a thread of its own, as the in-process communicator does.
template <class F>
void on_ranks(int ranks, F&& work) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back([&, rank] { work(rank); });
  for (std::thread& t : threads) t.join();
}

inline std::vector<std::byte> read_whole(const Checkpoint& checkpoint, const std::string& name) {
  const int64_t n = checkpoint.shape(name).elements();
  std::vector<std::byte> bytes(static_cast<size_t>(n) * size_of(checkpoint.dtype(name)));
  checkpoint.read(name, 0, n, checkpoint.dtype(name), bytes.data());
  return bytes;
}

// Does the checkpoint hold exactly these tensors, bit for bit? Names the first that differs.
inline std::string difference(const Checkpoint& checkpoint,
                              const std::vector<SavedTensor>& tensors) {
  if (checkpoint.names().size() != tensors.size()) return "another number of tensors";
  for (const SavedTensor& t : tensors) {
    if (!checkpoint.has(t.name)) return cat(t.name, " is missing");
    if (checkpoint.shape(t.name) != t.shape) return cat(t.name, " has another shape");
    if (checkpoint.dtype(t.name) != t.dtype) return cat(t.name, " has another type");
    if (read_whole(checkpoint, t.name) != t.bytes) return cat(t.name, " has other values");
  }
  return "";
}

}  // namespace shoestring
