#pragma once
// How rows travel between the ranks of an expert group: legs of an all-to-all each, with a
// re-ordering before every leg and one at the end. A way is a permutation of rows (but for padding,
// which arrives as zeros), so going back the same way is both its inverse and its adjoint.
//
// Where each of several ranks holds a slice of the same experts, what arrives at any of them is
// gathered by all before the end. On the way back their rows, parts of sums, are added in the order
// of the slices (one rounding, parallel/communicator.h) and each rank goes on with those that
// arrived at it: the adjoint of the way, and no longer its inverse.
//
// Rows are pieces of memory of any element type: values, or codes with their scales
// (core/fp8/packed_rows.h). Index tensors are i32 on the device; only the numbers of rows sent and
// received are known on the host.

#include <cstdint>
#include <span>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"
#include "parallel/communicator.h"

namespace shoestring {

// Row i of the result is row there[i] of the source.
struct RowOrder {
  Tensor there;  // [to], -1: zeros; empty: the first `to` rows as they lie
  Tensor back;   // [from]: where each row went, -1: nowhere; empty like `there`, or never asked for
  int64_t from = 0, to = 0;
};

struct ExpertLeg {
  Communicator* ranks = nullptr;        // outlives the way
  RowOrder order;                       // into the order of sending, by rank
  std::vector<int64_t> sent, received;  // rows to and from each rank
};

// Ranks that hold slices of the same experts.
struct ExpertSlices {
  Communicator* ranks = nullptr;   // outlives the way; null: experts are whole
  std::vector<int64_t> rows = {};  // that arrived at each of them
};

struct ExpertWay {
  std::vector<ExpertLeg> legs;
  ExpertSlices slices = {};
  RowOrder order;  // of what arrived, by slice and source rank, into the order of the end
};

// i32 on the device, of a kind that no recompute region drops.
Tensor row_numbers(Stream& stream, int64_t count);
int64_t total(std::span<const int64_t> counts);

// y[i] = x[index[i]], zeros where the index is -1. x [R, C] -> [index, C].
Tensor take_rows(Stream& stream, const Tensor& x, const Tensor& index, MemoryKind kind);

// x [way's first from, C] -> [order.to, C], and back. Enqueued on the stream; all ranks of the legs
// call it.
Tensor travel(Stream& stream, const ExpertWay& way, const Tensor& x);
Tensor travel_back(Stream& stream, const ExpertWay& way, const Tensor& y);

// What this rank sends to others on the way and on the way back, rows of `row` bytes.
int64_t bytes_there(const ExpertWay& way, int64_t row);
int64_t bytes_back(const ExpertWay& way, int64_t row);
// Of bytes_there(): rows that this rank gives to those with other slices, one for each of them.
int64_t rows_given(const ExpertWay& way);

}  // namespace shoestring
