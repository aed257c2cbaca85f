#include "core/row_travel.h"

namespace shoestring {
namespace {

// One direction of an edge.
struct Way {
  RowTravel* edge = nullptr;
  bool back = false;
  int64_t rows_behind(int64_t rows) const {
    if (edge == nullptr) return rows;
    return back ? edge->rows_before(rows) : edge->rows_beyond(rows);
  }
  void go(Stream& stream, const Tensor& from, const Tensor& to, const RowWork& work) const {
    back ? edge->cross_back(stream, from, to, work) : edge->cross(stream, from, to, work);
  }
};

// The product overlaps one of the two: the edge in front of it if there is one and none behind.
Crossed run(Stream& stream, const Way& first, const Way& second, const Tensor& x,
            const LinearRows& rows) {
  Crossed c;
  const int64_t n = first.rows_behind(x.rows()), columns = x.columns();
  c.argument = first.edge ? Tensor(stream.device(), {n, columns}, x.dtype()) : x;
  const auto made = [&](int64_t count) {
    return Tensor(stream.device(), {count, rows.columns}, x.dtype());
  };
  const auto read = [&](int64_t begin, int64_t end) {
    if (rows.read) rows.read(c.argument, begin, end);
  };
  if (second.edge == nullptr) {
    c.result = made(n);
    const auto multiply = [&](int64_t begin, int64_t end) {
      read(begin, end);
      rows.multiply(c.argument, begin, c.result.rows(begin, end));
    };
    if (first.edge) {
      first.go(stream, x, c.argument, {.make = {}, .arrived = multiply});
    } else {
      multiply(0, n);
    }
    return c;
  }
  if (first.edge) {
    first.go(stream, x, c.argument, {.make = {}, .arrived = read});
  } else {
    read(0, n);
  }
  c.result = made(second.rows_behind(n));
  const auto make = [&](int64_t begin, const Tensor& part) {
    rows.multiply(c.argument, begin, part);
  };
  second.go(stream, {}, c.result, {.make = make, .arrived = {}});
  return c;
}

}  // namespace

Crossed cross_linear(Stream& stream, const Edges& edges, const Tensor& x, const LinearRows& rows) {
  return run(stream, {edges.in, false}, {edges.out, false}, x, rows);
}

Crossed cross_linear_back(Stream& stream, const Edges& edges, const Tensor& dy,
                          const LinearRows& rows) {
  return run(stream, {edges.out, true}, {edges.in, true}, dy, rows);
}

}  // namespace shoestring
