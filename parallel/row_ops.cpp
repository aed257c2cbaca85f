#include "parallel/row_ops.h"

#include <cstring>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

int64_t rows_a_rank(const Communicator& group, int64_t rows) {
  if (rows % group.size() != 0) {
    fail_usage(cat(rows, " rows of a micro-batch cannot be shared out among the ", group.size(),
                   " ranks of ", group.name(),
                   "; micro_batch * sequence_length must be a multiple"));
  }
  return rows / group.size();
}

namespace {

Shape with_rows(Shape shape, int64_t rows) {
  shape.set(0, rows);
  return shape;
}

View view_of(const Tensor& t) { return {t.raw(), t.elements(), t.dtype()}; }
Buffer buffer_of(const Tensor& t) { return {t.raw(), t.elements(), t.dtype()}; }

std::vector<int64_t> equal_counts(const Communicator& group, int64_t elements) {
  return std::vector<int64_t>(static_cast<size_t>(group.size()), elements / group.size());
}

Tensor gather(Stream& stream, Communicator& group, const Tensor& x) {
  Tensor all(stream.device(), with_rows(x.shape(), x.shape()[0] * group.size()), x.dtype());
  group.all_gather(view_of(x), equal_counts(group, all.elements()), buffer_of(all), stream);
  return all;
}

Tensor scatter_sum(Stream& stream, Communicator& group, const Tensor& x) {
  Tensor own(stream.device(), with_rows(x.shape(), rows_a_rank(group, x.shape()[0])), x.dtype());
  group.reduce_scatter(view_of(x), equal_counts(group, x.elements()), buffer_of(own), Reduce::sum,
                       stream);
  return own;
}

// A copy: views of the whole would keep its memory.
Tensor own_rows(Stream& stream, const Communicator& group, const Tensor& x) {
  const int64_t rows = rows_a_rank(group, x.shape()[0]);
  const Tensor from = x.rows(group.rank() * rows, (group.rank() + 1) * rows);
  Tensor own(stream.device(), from.shape(), from.dtype());
  stream.run([from, own] { std::memcpy(own.raw(), from.raw(), own.bytes()); });
  return own;
}

Tensor among_zeros(Stream& stream, const Communicator& group, const Tensor& dy) {
  const int64_t rows = dy.shape()[0];
  Tensor all(stream.device(), with_rows(dy.shape(), rows * group.size()), dy.dtype());
  const Tensor own = all.rows(group.rank() * rows, (group.rank() + 1) * rows);
  stream.run([all, own, dy] {
    std::memset(all.raw(), 0, all.bytes());
    std::memcpy(own.raw(), dy.raw(), dy.bytes());
  });
  return all;
}

}  // namespace

Tensors<1> GatherRows::forward(Stream& stream, const Attributes& a, const Tensors<1>& x, Saved&) {
  return {gather(stream, *a.group, x[0])};
}
Tensors<1> GatherRows::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                  const Tensors<1>& dy) {
  return {scatter_sum(stream, *a.group, dy[0])};
}

Tensors<1> ScatterRows::forward(Stream& stream, const Attributes& a, const Tensors<1>& x, Saved&) {
  return {scatter_sum(stream, *a.group, x[0])};
}
Tensors<1> ScatterRows::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                   const Tensors<1>& dy) {
  return {gather(stream, *a.group, dy[0])};
}

Tensors<1> GatherAlike::forward(Stream& stream, const Attributes& a, const Tensors<1>& x, Saved&) {
  return {gather(stream, *a.group, x[0])};
}
Tensors<1> GatherAlike::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                   const Tensors<1>& dy) {
  return {own_rows(stream, *a.group, dy[0])};
}

Tensors<1> KeepRows::forward(Stream& stream, const Attributes& a, const Tensors<1>& x, Saved&) {
  return {own_rows(stream, *a.group, x[0])};
}
Tensors<1> KeepRows::grad_input(Stream& stream, const Attributes& a, const Saved&,
                                const Tensors<1>& dy) {
  return {among_zeros(stream, *a.group, dy[0])};
}

}  // namespace shoestring
