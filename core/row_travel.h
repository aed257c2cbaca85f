#pragma once
// Rows that cross a boundary (core/seams.h) in several runs, so that a product in front of it makes
// some while others travel, or one behind it reads some while others still come. On one rank there
// are none; parallel/ fills them.

#include <functional>

#include "core/tensor.h"

namespace shoestring {

// What a product does with rows; both enqueue on the stream of the crossing.
struct RowWork {
  // Fills `rows` with rows first, first + 1, .. of what crosses. Every row is asked for once, in
  // any order.
  std::function<void(int64_t first, const Tensor& rows)> make;
  // Rows begin..end of the result are there. Called for every row once, in any order.
  std::function<void(int64_t begin, int64_t end)> arrived;
};

class RowTravel {
 public:
  virtual ~RowTravel() = default;
  // Rows of the result of as many rows, and the other way round.
  virtual int64_t rows_beyond(int64_t rows) const = 0;
  virtual int64_t rows_before(int64_t rows) const = 0;
  // y = what arrives when x crosses; with work.make, x may be empty and is made of it. Both have
  // the type and the columns of y. Later work of the stream finds y complete.
  virtual void cross(Stream& stream, const Tensor& x, const Tensor& y, const RowWork& work) = 0;
  // The adjoint: dx of dy.
  virtual void cross_back(Stream& stream, const Tensor& dy, const Tensor& dx,
                          const RowWork& work) = 0;
};

// The boundaries at both sides of a linear; null: the identity.
struct Edges {
  RowTravel* in = nullptr;
  RowTravel* out = nullptr;
  explicit operator bool() const { return in != nullptr || out != nullptr; }
};

// A linear between two edges: y = out(f(in(x))), and in the backward pass dx = in*(g(out*(dy))).
struct LinearRows {
  int64_t columns = 0;  // of f's result
  // Told that rows of f's argument are there, before they are multiplied; may be empty.
  std::function<void(const Tensor& argument, int64_t begin, int64_t end)> read;
  // Fills `rows` with rows first.. of f(argument), which were read before.
  std::function<void(const Tensor& argument, int64_t first, const Tensor& rows)> multiply;
};
struct Crossed {
  Tensor argument;  // of f, all rows: x itself without an edge in front of it
  Tensor result;
};
Crossed cross_linear(Stream& stream, const Edges& edges, const Tensor& x, const LinearRows& rows);
Crossed cross_linear_back(Stream& stream, const Edges& edges, const Tensor& dy,
                          const LinearRows& rows);

}  // namespace shoestring
