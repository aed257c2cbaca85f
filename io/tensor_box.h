#pragma once
// Parts of tensors, as ranks hold them. A tensor counts as a matrix here: its last dim is columns,
// all others are rows; a vector has one column.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/param.h"
#include "core/tensor.h"

namespace shoestring {

// Some rows and a range of columns: a matrix of its own, in row-major order.
struct TensorBox {
  std::vector<RowRun> rows = {};  // `local` without gaps from 0 on, `global` ascending
  int64_t first_column = 0, columns = 0;

  int64_t elements() const {
    return rows.empty() ? 0 : (rows.back().local + rows.back().count) * columns;
  }
  friend bool operator==(const TensorBox&, const TensorBox&);
};

// Elements [begin, end) of a box; without one, of the whole tensor.
struct BoxRange {
  std::optional<TensorBox> box = {};
  int64_t begin = 0, end = 0;

  int64_t elements() const { return end - begin; }
  friend bool operator==(const BoxRange&, const BoxRange&) = default;
};

// What a rank holds of a parameter: empty when that is all of it.
std::optional<TensorBox> box_of(const ParamInfo& info);
// The parameter's shape of all ranks together.
const Shape& whole_shape(const ParamInfo& info);

int64_t rows_of(const Shape& shape);
int64_t columns_of(const Shape& shape);

// Why there is no such part of a tensor of this shape; empty: there is. Any numbers may stand in
// it.
std::string complaint_of(const Shape& shape, const BoxRange& part);
// "elements 3 to 9 of rows 0-7 16-23, columns 4-7".
std::string text_of(const BoxRange& part);

// The same elements in the same order, told in the shortest way: without the rows that the range
// does not touch, with neighbouring runs joined, and without a box where they follow one another in
// the tensor.
BoxRange simplified(const Shape& shape, BoxRange part);

// Rows [row, row + rows) and columns [column, column + columns) of a tensor. Their element (i, j)
// is element at + i * stride + j of the part.
struct BoxRectangle {
  int64_t row = 0, rows = 0, column = 0, columns = 0;
  int64_t at = 0, stride = 0;
};
// Disjoint, with elements in each; together the part, in its order.
std::vector<BoxRectangle> rectangles_of(const Shape& shape, const BoxRange& part);

}  // namespace shoestring
